/* fuzz_proxy.c - what proxies say of their clients, beside regular expressions of the C library.
 *
 * One input is what stands in front of a connection, and the value of an X-Forwarded-For as well.
 */
#include "np_fuzz.h"

#include <arpa/inet.h>
#include <regex.h>
#include <sys/socket.h>

#include "server/np_proxy.h"

enum { V1_MAX_BYTES = 107, WORD_MAX_BYTES = 45, NETWORKS_COUNT = 3, GROUPS = 6 };

#define PORT "(0|[1-9][0-9]{0,4})"

/* A regular expression, compiled once. */
static int matches(regex_t *compiled, const char *expression, const char *text, regmatch_t *groups)
{
    if (compiled->re_nsub == 0)
        NP_ASSERT(regcomp(compiled, expression, REG_EXTENDED) == 0);
    return regexec(compiled, text, GROUPS, groups, 0) == 0;
}

static int read_port(const char *text, const regmatch_t *group, uint16_t *port)
{
    long number = group->rm_so < 0 ? 0 : strtol(text + group->rm_so, NULL, 10);
    *port = (uint16_t)number;
    return number <= UINT16_MAX;
}

static int read_address(const char *text, const regmatch_t *group, int family, struct np_peer *peer)
{
    char word[WORD_MAX_BYTES + 1] = "";
    size_t bytes = (size_t)(group->rm_eo - group->rm_so);
    if (bytes > WORD_MAX_BYTES)
        return 0;
    memcpy(word, text + group->rm_so, bytes);
    peer->family = (uint16_t)family;
    return inet_pton(family, word, peer->address) == 1;
}

static int is_peer_same(const struct np_peer *one, const struct np_peer *other)
{
    return one->family == other->family && one->port == other->port &&
           memcmp(one->address, other->address, sizeof(one->address)) == 0;
}

/* ---- version 1 ------------------------------------------------------------------------------ */

/* A line without its CR LF. */
static int is_good_line(const uint8_t *line, size_t bytes, struct np_proxy *proxy)
{
    static regex_t expression;
    regmatch_t groups[GROUPS];
    char text[V1_MAX_BYTES + 1];
    memcpy(text, line, bytes);
    text[bytes] = 0;
    if (strncmp(text, "PROXY UNKNOWN", 13) == 0 && bytes >= 13 &&
        (bytes == 13 || text[13] == ' ' || text[13] == '\r'))
        return 1;
    if (strlen(text) != bytes ||
        !matches(&expression, "^PROXY TCP([46]) ([^ ]+) ([^ ]+) " PORT " " PORT "$", text, groups))
        return 0;
    int family = text[groups[1].rm_so] == '4' ? AF_INET : AF_INET6;
    return read_address(text, &groups[2], family, &proxy->source) &&
           read_address(text, &groups[3], family, &proxy->target) &&
           read_port(text, &groups[4], &proxy->source.port) &&
           read_port(text, &groups[5], &proxy->target.port);
}

static ptrdiff_t model_v1(const uint8_t *data, size_t size, struct np_proxy *proxy)
{
    for (size_t i = 0; i < size && i < V1_MAX_BYTES; i++) {
        if (i < 6 && data[i] != (uint8_t)"PROXY "[i])
            return -1;
        if (data[i] == '\n')
            return i >= 7 && data[i - 1] == '\r' && is_good_line(data, i - 1, proxy)
                       ? (ptrdiff_t)i + 1
                       : -1;
    }
    return size < V1_MAX_BYTES ? 0 : -1;
}

/* ---- version 2 ------------------------------------------------------------------------------ */

struct v2 {
    uint8_t signature[12], command, kind, length[2], rest[];
};

static int are_additions(const uint8_t *rest, size_t bytes)
{
    size_t at = 0;
    while (bytes - at >= 3 && bytes - at - 3 >= rest[at + 1] * 256u + rest[at + 2])
        at += 3 + rest[at + 1] * 256u + rest[at + 2];
    return at == bytes;
}

static ptrdiff_t model_v2(const uint8_t *data, size_t size, struct np_proxy *proxy)
{
    static const char SIGNATURE[] = "\r\n\r\n\0\r\nQUIT\n";
    const struct v2 *head = (const void *)data;
    for (size_t i = 0; i < size && i < 12; i++)
        if (data[i] != (uint8_t)SIGNATURE[i])
            return -1;
    if (size > 12 && head->command != 0x20 && head->command != 0x21)
        return -1;
    if (size < sizeof(*head))
        return 0;
    size_t length = head->length[0] * 256u + head->length[1];
    size_t address = head->kind == 0x11 ? 4 : head->kind == 0x21 ? 16 : 108;
    size_t addresses = head->kind == 0x31 ? 216 : 2 * address + 4;
    if (length + sizeof(*head) > NP_PROXY_MAX_BYTES)
        return -1;
    if (size < length + sizeof(*head))
        return 0;
    if (head->command == 0x20 || head->kind == 0)
        return (ptrdiff_t)(length + sizeof(*head));
    if ((head->kind != 0x11 && head->kind != 0x21 && head->kind != 0x31) || length < addresses ||
        !are_additions(head->rest + addresses, length - addresses))
        return -1;
    if (head->kind != 0x31) {
        const uint8_t *ports = head->rest + 2 * address;
        proxy->source.family = proxy->target.family = head->kind == 0x11 ? AF_INET : AF_INET6;
        memcpy(proxy->source.address, head->rest, address);
        memcpy(proxy->target.address, head->rest + address, address);
        proxy->source.port = (uint16_t)(ports[0] * 256 + ports[1]);
        proxy->target.port = (uint16_t)(ports[2] * 256 + ports[3]);
    }
    return (ptrdiff_t)(length + sizeof(*head));
}

/* Every cut gives what the model says of it, and a verdict stays what it is. */
static void check_header(const uint8_t *data, size_t size)
{
    ptrdiff_t before = 0;
    size_t step = size < 2 * V1_MAX_BYTES ? 1 : 37;
    for (size_t there = 0;; there += step) {
        there = there < size ? there : size;
        struct np_proxy proxy, wanted = {0};
        uint8_t *piece = np_fuzz_copy(data, there);
        ptrdiff_t result = np_proxy_read(piece, there, &proxy);
        ptrdiff_t model = there && data[0] == '\r' ? model_v2(piece, there, &wanted)
                                                   : model_v1(piece, there, &wanted);
        free(piece);
        NP_ASSERT(result == model);
        NP_ASSERT(before == 0 || result == before);
        if (result > 0)
            NP_ASSERT(is_peer_same(&proxy.source, &wanted.source) &&
                      is_peer_same(&proxy.target, &wanted.target));
        before = result;
        if (there == size)
            return;
    }
}

/* ---- X-Forwarded-For ------------------------------------------------------------------------ */

static int model_peer(const uint8_t *at, size_t bytes, struct np_peer *peer)
{
    static regex_t bracketed, dotted, colons;
    regmatch_t groups[GROUPS];
    char text[NP_FUZZ_INPUT_MAX_BYTES + 1];
    int is_good;
    memset(peer, 0, sizeof(*peer));
    memcpy(text, at, bytes);
    text[bytes] = 0;
    if (strlen(text) != bytes)
        return -1;
    if (matches(&bracketed, "^\\[([^]]+)\\](:" PORT ")?$", text, groups))
        is_good = read_address(text, &groups[1], AF_INET6, peer) &&
                  read_port(text, &groups[3], &peer->port);
    else if (matches(&dotted, "^([^]:[]+)(:" PORT ")?$", text, groups))
        is_good = read_address(text, &groups[1], AF_INET, peer) &&
                  read_port(text, &groups[3], &peer->port);
    else
        is_good = matches(&colons, "^([^][]+:[^][]*)$", text, groups) &&
                  read_address(text, &groups[1], AF_INET6, peer);
    return is_good ? 0 : -1;
}

static int model_has(const struct np_network *network, const struct np_peer *peer)
{
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};
    int is_mapped = peer->family == AF_INET6 && memcmp(peer->address, MAPPED, 12) == 0;
    const uint8_t *address = peer->address + (is_mapped ? 12 : 0);
    if (network->family == AF_UNSPEC)
        return 1;
    if (network->family != (is_mapped ? AF_INET : peer->family))
        return 0;
    for (int i = 0; i < network->bits; i++)
        if ((address[i / 8] ^ network->address[i / 8]) & (0x80 >> i % 8))
            return 0;
    return 1;
}

/* From the right: the first one that is no proxy of ours. */
static int model_client(const uint8_t *value, size_t size, const struct np_network *networks,
                        size_t *at, size_t *bytes, struct np_peer *peer)
{
    int found = -1;
    for (ptrdiff_t end = (ptrdiff_t)size; end >= 0;) {
        ptrdiff_t begin = end;
        while (begin > 0 && value[begin - 1] != ',')
            begin--;
        ptrdiff_t first = begin, last = end;
        while (first < last && (value[first] == ' ' || value[first] == '\t'))
            first++;
        while (last > first && (value[last - 1] == ' ' || value[last - 1] == '\t'))
            last--;
        end = begin - 1;
        if (first == last)
            continue;
        *at = (size_t)first;
        *bytes = (size_t)(last - first);
        if (model_peer(value + first, *bytes, peer) < 0) {
            memset(peer, 0, sizeof(*peer));
            return 1;
        }
        int is_trusted = 0;
        for (int i = 0; i < NETWORKS_COUNT; i++)
            is_trusted |= model_has(&networks[i], peer);
        if (!is_trusted)
            return 1;
        found = 0;
    }
    return found;
}

static void read_networks(struct np_fuzz *fuzz, struct np_network *networks)
{
    static const uint16_t FAMILIES[] = {AF_INET, AF_INET6, AF_INET, AF_INET, AF_UNSPEC};
    for (int i = 0; i < NETWORKS_COUNT; i++) {
        networks[i] = (struct np_network){.family = FAMILIES[np_fuzz_below(fuzz, 5)]};
        networks[i].bits = (uint16_t)np_fuzz_below(fuzz, networks[i].family == AF_INET ? 33 : 129);
        networks[i].address[0] = np_fuzz_byte(fuzz);
        networks[i].address[1] = np_fuzz_byte(fuzz);
    }
}

static void check_forwarded(const uint8_t *data, size_t size, const struct np_network *networks)
{
    size_t at = 0, bytes = 0, wanted_at = 0, wanted_bytes = 0;
    struct np_peer peer, wanted;
    uint8_t *value = np_fuzz_copy(data, size);
    NP_ASSERT(np_peer_read(value, size, &peer) == model_peer(value, size, &wanted));
    int result = np_forwarded_client(value, size, networks, NETWORKS_COUNT, &at, &bytes, &peer);
    int model = model_client(value, size, networks, &wanted_at, &wanted_bytes, &wanted);
    free(value);
    NP_ASSERT(result == model);
    if (result >= 0)
        NP_ASSERT(at == wanted_at && bytes == wanted_bytes && is_peer_same(&peer, &wanted));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct np_network networks[NETWORKS_COUNT];
    struct np_fuzz fuzz = np_fuzz_of(
        input, bytes < NP_FUZZ_INPUT_MAX_BYTES ? bytes : NP_FUZZ_INPUT_MAX_BYTES);
    read_networks(&fuzz, networks);
    check_header(fuzz.at, np_fuzz_left(&fuzz));
    check_forwarded(fuzz.at, np_fuzz_left(&fuzz), networks);
    return 0;
}
