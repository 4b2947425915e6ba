/* test_proxy.c - the PROXY protocol, networks, and the seats of processes. */
#include "np_test.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "server/np_proxy.h"
#include "server/np_seats.h"

/* Flush against an unreadable page, in all pieces that it may come in. */
static ptrdiff_t read_all(const void *data, size_t size, struct np_proxy *proxy)
{
    ptrdiff_t result = 0;
    for (size_t have = 0; have <= size && result == 0; have++) {
        struct np_guarded memory = np_guarded_open(have ? have : 1);
        memcpy(memory.base, data, have);
        result = np_proxy_read(memory.base, have, proxy);
        np_guarded_close(&memory);
        if (result > 0)
            assert_int_equal(result, have); /* no sooner, no later */
    }
    return result;
}

static ptrdiff_t read_text(const char *text, struct np_proxy *proxy)
{
    return read_all(text, strlen(text), proxy);
}

static void assert_peer(const struct np_peer *peer, int family, const char *address, int port)
{
    uint8_t wanted[16];
    assert_int_equal(inet_pton(family, address, wanted), 1);
    assert_int_equal(peer->family, family);
    assert_memory_equal(peer->address, wanted, family == AF_INET ? 4 : 16);
    assert_int_equal(peer->port, port);
}

static void lines_are_read(void **state)
{
    struct np_proxy proxy;
    (void)state;
    const char *four = "PROXY TCP4 1.2.3.4 255.255.255.255 65535 1\r\n";
    assert_int_equal(read_text(four, &proxy), strlen(four));
    assert_peer(&proxy.source, AF_INET, "1.2.3.4", 65535);
    assert_peer(&proxy.target, AF_INET, "255.255.255.255", 1);
    const char *six = "PROXY TCP6 2001:db8::1 ::1 0 443\r\n";
    assert_int_equal(read_text(six, &proxy), strlen(six));
    assert_peer(&proxy.source, AF_INET6, "2001:db8::1", 0);
    assert_peer(&proxy.target, AF_INET6, "::1", 443);
    assert_int_equal(read_text("PROXY UNKNOWN\r\n", &proxy), 15);
    assert_int_equal(proxy.source.family, AF_UNSPEC);
    assert_int_equal(read_text("PROXY UNKNOWN any thing\r\n", &proxy), 25);
    assert_int_equal(proxy.source.family, AF_UNSPEC);
}

static void other_lines_are_refused(void **state)
{
    static const char *const LINES[] = {
        "GET / HTTP/1.1\r\n",
        "PROXX",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 +1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 123456\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n",
    };
    struct np_proxy proxy;
    char longest[200];
    (void)state;
    for (size_t i = 0; i < sizeof(LINES) / sizeof(LINES[0]); i++)
        assert_int_equal(read_text(LINES[i], &proxy), -1);
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "PROXY UNKNOWN ", 14);
    assert_int_equal(read_all(longest, sizeof(longest), &proxy), -1);
    longest[105] = '\r';
    longest[106] = '\n'; /* 107 bytes */
    assert_int_equal(read_all(longest, sizeof(longest), &proxy), 107);
    assert_int_equal(
        np_proxy_read((const uint8_t *)"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 1\r\n", 34, &proxy), -1);
}

static size_t binary(uint8_t *into, int command, int kind, const void *rest, size_t size)
{
    memcpy(into, "\r\n\r\n\0\r\nQUIT\n", 12);
    into[12] = (uint8_t)command;
    into[13] = (uint8_t)kind;
    into[14] = (uint8_t)(size >> 8);
    into[15] = (uint8_t)size;
    memcpy(into + 16, rest, size);
    return 16 + size;
}

static void binary_headers_are_read(void **state)
{
    uint8_t data[NP_PROXY_MAX_BYTES + 16], rest[NP_PROXY_MAX_BYTES] = {0};
    struct np_proxy proxy;
    size_t size;
    (void)state;
    memcpy(rest, "\1\2\3\4\5\6\7\10\1\2\3\4", 12);
    size = binary(data, 0x21, 0x11, rest, 12);
    assert_int_equal(read_all(data, size, &proxy), size);
    assert_peer(&proxy.source, AF_INET, "1.2.3.4", 0x102);
    assert_peer(&proxy.target, AF_INET, "5.6.7.8", 0x304);
    memcpy(rest + 12, "\2\0\1x\4\0\0", 7); /* an authority and padding */
    size = binary(data, 0x21, 0x11, rest, 19);
    assert_int_equal(read_all(data, size, &proxy), size);
    memset(rest, 0, sizeof(rest));
    rest[15] = 1;
    rest[35] = 80;
    size = binary(data, 0x21, 0x21, rest, 36);
    assert_int_equal(read_all(data, size, &proxy), size);
    assert_peer(&proxy.source, AF_INET6, "::1", 0);
    assert_peer(&proxy.target, AF_INET6, "::", 80);
    size = binary(data, 0x20, 0x11, rest, 12); /* LOCAL */
    assert_int_equal(read_all(data, size, &proxy), size);
    assert_int_equal(proxy.source.family, AF_UNSPEC);
    size = binary(data, 0x21, 0x00, rest, 0);
    assert_int_equal(read_all(data, size, &proxy), size);
    size = binary(data, 0x21, 0x31, rest, 216);
    assert_int_equal(read_all(data, size, &proxy), size);
    assert_int_equal(proxy.source.family, AF_UNSPEC);
}

static void other_binary_headers_are_refused(void **state)
{
    uint8_t data[NP_PROXY_MAX_BYTES + 16], rest[NP_PROXY_MAX_BYTES] = {0};
    struct np_proxy proxy;
    (void)state;
    static const struct {
        int command, kind;
        size_t size;
    } CASES[] = {
        {0x11, 0x11, 12},  {0x22, 0x11, 12},
        {0x21, 0x12, 12},  {0x21, 0x41, 12},
        {0x21, 0x11, 11},  {0x21, 0x21, 35},
        {0x21, 0x11, 13},  {0x21, 0x11, 14},
        {0x21, 0x31, 100}, {0x20, 0, NP_PROXY_MAX_BYTES - 15},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        size_t size = binary(data, CASES[i].command, CASES[i].kind, rest, CASES[i].size);
        assert_int_equal(read_all(data, size, &proxy), -1);
    }
    rest[12] = 4;
    rest[14] = 5; /* an addition that is longer than what is left */
    assert_int_equal(read_all(data, binary(data, 0x21, 0x11, rest, 19), &proxy), -1);
    assert_int_equal(np_proxy_read((const uint8_t *)"\r\n\r\nx", 5, &proxy), -1);
}

static void networks_have_their_addresses(void **state)
{
    static const struct {
        const char *network;
        int bits;
        const char *address;
        int has;
    } CASES[] = {
        {"10.0.0.0", 8, "10.255.0.1", 1},
        {"10.0.0.0", 8, "11.0.0.0", 0},
        {"10.128.0.0", 9, "10.129.0.0", 1},
        {"10.128.0.0", 9, "10.127.255.255", 0},
        {"1.2.3.4", 32, "1.2.3.4", 1},
        {"1.2.3.4", 32, "1.2.3.5", 0},
        {"0.0.0.0", 0, "9.9.9.9", 1},
        {"0.0.0.0", 0, "::1", 0},
        {"::", 0, "::1", 1},
        {"2001:db8::", 33, "2001:db8:7fff::", 1},
        {"2001:db8::", 33, "2001:db8:8000::", 0},
        {"1.2.3.0", 24, "::ffff:1.2.3.4", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct np_network network = {.bits = (uint16_t)CASES[i].bits};
        struct np_peer peer = {0};
        network.family = strchr(CASES[i].network, ':') ? AF_INET6 : AF_INET;
        peer.family = strchr(CASES[i].address, ':') ? AF_INET6 : AF_INET;
        assert_int_equal(inet_pton(network.family, CASES[i].network, network.address), 1);
        assert_int_equal(inet_pton(peer.family, CASES[i].address, peer.address), 1);
        assert_int_equal(np_network_has(&network, &peer), CASES[i].has);
    }
    struct np_network every = {.family = AF_UNSPEC};
    struct np_peer nobody = {0};
    assert_true(np_network_has(&every, &nobody));
}

static void addresses_are_read(void **state)
{
    static const struct {
        const char *text;
        int family, port;
        const char *address;
    } CASES[] = {
        {"1.2.3.4", AF_INET, 0, "1.2.3.4"},
        {"1.2.3.4:80", AF_INET, 80, "1.2.3.4"},
        {"::1", AF_INET6, 0, "::1"},
        {"[::1]", AF_INET6, 0, "::1"},
        {"[2001:db8::1]:65535", AF_INET6, 65535, "2001:db8::1"},
    };
    static const char *const OTHERS[] = {
        "",
        "[",
        "[]",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[1.2.3.4]",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3",
        "unknown",
        "1.2.3.4:65536",
        "1.2.3.4:080",
        "_secret",
        "::1:::",
        ":80",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000",
    };
    struct np_peer peer;
    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct np_guarded memory = np_guarded_open(strlen(CASES[i].text));
        memcpy(memory.base, CASES[i].text, strlen(CASES[i].text));
        assert_int_equal(np_peer_read(memory.base, strlen(CASES[i].text), &peer), 0);
        assert_peer(&peer, CASES[i].family, CASES[i].address, CASES[i].port);
        np_guarded_close(&memory);
    }
    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++)
        assert_int_equal(np_peer_read((const uint8_t *)OTHERS[i], strlen(OTHERS[i]), &peer), -1);
}

static void the_last_that_is_not_trusted_is_the_client(void **state)
{
    static const struct {
        const char *value;
        int result;
        const char *client;
    } CASES[] = {
        {"1.2.3.4", 1, "1.2.3.4"},
        {"6.6.6.6, 1.2.3.4 , 10.0.0.7", 1, "1.2.3.4"},
        {"10.0.0.1,10.0.0.2", 0, "10.0.0.1"},
        {"6.6.6.6, words\t,10.0.0.2,", 1, "words"},
        {" ,, ", -1, ""},
        {"", -1, ""},
        {",10.0.0.1", 0, "10.0.0.1"},
    };
    struct np_network ours = {.family = AF_INET, .bits = 8, .address = {10}};
    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        size_t size = strlen(CASES[i].value), at = 0, bytes = 0;
        struct np_peer peer;
        struct np_guarded memory = np_guarded_open(size ? size : 1);
        memcpy(memory.base, CASES[i].value, size);
        assert_int_equal(np_forwarded_client(memory.base, size, &ours, 1, &at, &bytes, &peer),
                         CASES[i].result);
        assert_int_equal(bytes, strlen(CASES[i].client));
        assert_memory_equal(memory.base + at, CASES[i].client, bytes);
        np_guarded_close(&memory);
    }
}

static void who_has_more_lets_others_go_first(void **state)
{
    struct np_seat seats[4];
    (void)state;
    memset(seats, 0, sizeof(seats));
    np_seat_set(&seats[0], 5);
    assert_false(np_seat_is_heavy(seats, 4, 0)); /* alone */
    np_seat_set(&seats[2], 5);
    assert_false(np_seat_is_heavy(seats, 4, 0));
    np_seat_set(&seats[0], 6);
    assert_true(np_seat_is_heavy(seats, 4, 0));
    assert_false(np_seat_is_heavy(seats, 4, 2));
    np_seat_leave(&seats[2]);
    assert_false(np_seat_is_heavy(seats, 4, 0));
    np_seat_set(&seats[0], 1000 + 1000 / NP_SEAT_SLACK_PARTS);
    np_seat_set(&seats[1], 1000);
    assert_false(np_seat_is_heavy(seats, 4, 0)); /* not worth waiting for */
    np_seat_set(&seats[0], 1002 + 1000 / NP_SEAT_SLACK_PARTS);
    assert_true(np_seat_is_heavy(seats, 4, 0));
    np_seat_beat(&seats[3], 42);
    assert_int_equal(np_seat_beat_ns(&seats[3]), 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test(other_lines_are_refused),
        cmocka_unit_test(binary_headers_are_read),
        cmocka_unit_test(other_binary_headers_are_refused),
        cmocka_unit_test(networks_have_their_addresses),
        cmocka_unit_test(addresses_are_read),
        cmocka_unit_test(the_last_that_is_not_trusted_is_the_client),
        cmocka_unit_test(who_has_more_lets_others_go_first),
    };
    return NP_TEST_MAIN("test_proxy", tests);
}
