#include "server/np_proxy.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

/* ---- version 1: a line of text ------------------------------------------------------------- */

enum { V1_MAX_BYTES = 107, WORD_MAX_BYTES = 45 };

static const char V1_BEGIN[] = "PROXY ";

/* The word at *at, which ends before `stop`, into `word`. 0: none, or too long. */
static size_t take_word(const uint8_t **at, const uint8_t *end, uint8_t stop, char *word)
{
    const uint8_t *stops = memchr(*at, stop, end - *at);
    size_t size = stops ? (size_t)(stops - *at) : 0;
    if (size == 0 || size > WORD_MAX_BYTES)
        return 0;
    memcpy(word, *at, size);
    word[size] = 0;
    *at = stops + 1;
    return strlen(word) == size ? size : 0; /* no NUL within */
}

static int read_address(int family, const char *word, uint8_t *address)
{
    return inet_pton(family, word, address) == 1 ? 0 : -1;
}

/* Decimal, without a sign or a leading zero. */
static int read_port(const char *word, size_t size, uint16_t *port)
{
    uint32_t value = 0;
    if (size > 5 || (size > 1 && word[0] == '0'))
        return -1;
    for (size_t i = 0; i < size; i++) {
        if (word[i] < '0' || word[i] > '9')
            return -1;
        value = value * 10 + (uint32_t)(word[i] - '0');
    }
    if (value > UINT16_MAX)
        return -1;
    *port = (uint16_t)value;
    return 0;
}

/* `line`: without "PROXY ", with CR as its last byte. */
static int read_line(const uint8_t *at, const uint8_t *end, struct np_proxy *proxy)
{
    char word[WORD_MAX_BYTES + 1];
    size_t size;
    int family;
    if (end - at >= 8 && memcmp(at, "UNKNOWN", 7) == 0 && (at[7] == ' ' || at[7] == '\r'))
        return 0; /* what follows is to be ignored */
    if (!take_word(&at, end, ' ', word))
        return -1;
    if (strcmp(word, "TCP4") == 0)
        family = AF_INET;
    else if (strcmp(word, "TCP6") == 0)
        family = AF_INET6;
    else
        return -1;
    if (!take_word(&at, end, ' ', word) || read_address(family, word, proxy->source.address) < 0)
        return -1;
    if (!take_word(&at, end, ' ', word) || read_address(family, word, proxy->target.address) < 0)
        return -1;
    size = take_word(&at, end, ' ', word);
    if (!size || read_port(word, size, &proxy->source.port) < 0)
        return -1;
    size = take_word(&at, end, '\r', word);
    if (!size || at != end || read_port(word, size, &proxy->target.port) < 0)
        return -1;
    proxy->source.family = proxy->target.family = (uint16_t)family;
    return 0;
}

static ptrdiff_t read_v1(const uint8_t *data, size_t size, struct np_proxy *proxy)
{
    size_t begin = sizeof(V1_BEGIN) - 1;
    size_t seen = size < V1_MAX_BYTES ? size : V1_MAX_BYTES;
    const uint8_t *lf = memchr(data, '\n', seen);
    if (memcmp(data, V1_BEGIN, size < begin ? size : begin) != 0)
        return -1;
    if (!lf)
        return size < V1_MAX_BYTES ? 0 : -1;
    if ((size_t)(lf - data) < begin + 1 || lf[-1] != '\r')
        return -1;
    return read_line(data + begin, lf, proxy) < 0 ? -1 : lf - data + 1;
}

/* ---- version 2: binary --------------------------------------------------------------------- */

static const uint8_t V2_BEGIN[12] = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D,
                                     0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};

enum { V2_FIXED_BYTES = 16, LOCAL = 0x20, PROXY = 0x21 };

static void take_peer(struct np_peer *peer, int family, const uint8_t *address, size_t size,
                      const uint8_t *port)
{
    peer->family = (uint16_t)family;
    memcpy(peer->address, address, size);
    peer->port = (uint16_t)(port[0] << 8 | port[1]);
}

/* What is added: a type, a length and so many bytes, again and again, up to the end. */
static int check_additions(const uint8_t *at, size_t size)
{
    while (size) {
        size_t needs = size < 3 ? SIZE_MAX : 3 + (size_t)(at[1] << 8 | at[2]);
        if (needs > size)
            return -1;
        at += needs;
        size -= needs;
    }
    return 0;
}

static ptrdiff_t read_v2(const uint8_t *data, size_t size, struct np_proxy *proxy)
{
    size_t total, used = 0;
    const uint8_t *at = data + V2_FIXED_BYTES;
    if (memcmp(data, V2_BEGIN, size < sizeof(V2_BEGIN) ? size : sizeof(V2_BEGIN)) != 0)
        return -1;
    if (size > 12 && data[12] != LOCAL && data[12] != PROXY)
        return -1;
    if (size < V2_FIXED_BYTES)
        return 0;
    total = V2_FIXED_BYTES + (size_t)(data[14] << 8 | data[15]);
    if (total > NP_PROXY_MAX_BYTES)
        return -1;
    if (size < total)
        return 0;
    if (data[12] == LOCAL)
        return (ptrdiff_t)total; /* the rest is to be ignored */
    switch (data[13]) {
    case 0x00: /* UNSPEC */
        return (ptrdiff_t)total;
    case 0x11: /* TCP over IPv4 */
        used = 12;
        break;
    case 0x21: /* TCP over IPv6 */
        used = 36;
        break;
    case 0x31: /* a Unix stream: two paths */
        used = 216;
        break;
    default:
        return -1; /* datagrams, or nothing known */
    }
    if (total - V2_FIXED_BYTES < used ||
        check_additions(at + used, total - V2_FIXED_BYTES - used) < 0)
        return -1;
    if (used == 12) {
        take_peer(&proxy->source, AF_INET, at, 4, at + 8);
        take_peer(&proxy->target, AF_INET, at + 4, 4, at + 10);
    } else if (used == 36) {
        take_peer(&proxy->source, AF_INET6, at, 16, at + 32);
        take_peer(&proxy->target, AF_INET6, at + 16, 16, at + 34);
    }
    return (ptrdiff_t)total;
}

ptrdiff_t np_proxy_read(const uint8_t *data, size_t size, struct np_proxy *proxy)
{
    memset(proxy, 0, sizeof(*proxy));
    if (size == 0)
        return 0;
    return data[0] == V2_BEGIN[0] ? read_v2(data, size, proxy) : read_v1(data, size, proxy);
}

/* ---- networks ------------------------------------------------------------------------------ */

int np_network_has(const struct np_network *network, const struct np_peer *peer)
{
    static const uint8_t MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const uint8_t *address = peer->address;
    uint16_t family = peer->family;
    uint32_t whole = network->bits / 8, rest = network->bits % 8;
    if (network->family == AF_UNSPEC)
        return 1;
    if (family == AF_INET6 && memcmp(address, MAPPED, sizeof(MAPPED)) == 0) {
        family = AF_INET;
        address += sizeof(MAPPED);
    }
    if (family != network->family || memcmp(address, network->address, whole) != 0)
        return 0;
    return !rest || !((address[whole] ^ network->address[whole]) >> (8 - rest));
}

int np_networks_have(const struct np_network *networks, size_t count, const struct np_peer *peer)
{
    for (size_t i = 0; i < count; i++)
        if (np_network_has(&networks[i], peer))
            return 1;
    return 0;
}

/* ---- X-Forwarded-For ----------------------------------------------------------------------- */

int np_peer_read(const uint8_t *text, size_t size, struct np_peer *peer)
{
    char word[WORD_MAX_BYTES + 1];
    const uint8_t *port = NULL, *end = text + size;
    memset(peer, 0, sizeof(*peer));
    if (size && text[0] == '[') {
        const uint8_t *close = memchr(text, ']', size);
        if (!close || (close + 1 < end && close[1] != ':'))
            return -1;
        port = close + 1 < end ? close + 2 : NULL;
        size = (size_t)(close - ++text);
        peer->family = AF_INET6;
    } else {
        const uint8_t *colon = memchr(text, ':', size);
        peer->family = colon && memchr(colon + 1, ':', (size_t)(end - colon) - 1) ? AF_INET6
                                                                                  : AF_INET;
        if (colon && peer->family == AF_INET) {
            port = colon + 1;
            size = (size_t)(colon - text);
        }
    }
    if (size == 0 || size > WORD_MAX_BYTES || memchr(text, 0, size))
        return -1;
    memcpy(word, text, size);
    word[size] = 0;
    if (read_address(peer->family, word, peer->address) < 0)
        return -1;
    return port && (port == end ||
                    read_port((const char *)port, (size_t)(end - port), &peer->port) < 0)
               ? -1
               : 0;
}

int np_forwarded_client(const uint8_t *value, size_t size, const struct np_network *networks,
                        size_t networks_count, size_t *at, size_t *bytes, struct np_peer *peer)
{
    size_t end = size;
    int found = -1;
    for (;;) {
        size_t begin = end, stop = end;
        while (begin > 0 && value[begin - 1] != ',')
            begin--;
        size_t next = begin;
        while (begin < stop && (value[begin] == ' ' || value[begin] == '\t'))
            begin++;
        while (stop > begin && (value[stop - 1] == ' ' || value[stop - 1] == '\t'))
            stop--;
        if (stop > begin) {
            *at = begin;
            *bytes = stop - begin;
            if (np_peer_read(value + begin, stop - begin, peer) < 0) {
                memset(peer, 0, sizeof(*peer));
                peer->family = AF_UNSPEC;
                return 1;
            }
            if (!np_networks_have(networks, networks_count, peer))
                return 1;
            found = 0;
        }
        if (next == 0)
            return found;
        end = next - 1;
    }
}
