/* test_websocket.c - frames of WebSocket over every cut, masks at every offset, UTF-8. */
#include "np_test.h"

#include "http/np_utf8.h"
#include "http/np_websocket.h"

#define TEXT(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define KEY "\x01\x02\x03\x04"

/* ---- heads of frames ------------------------------------------------------------------------- */

/* What a head says: nothing before it is whole, then its size, or a fault. A fault may be known
 * before the head is whole, and is not taken back. */
static int read_head(struct np_ws *ws, struct np_ws_frame *frame, const uint8_t *bytes,
                     size_t count)
{
    int result = 0;
    for (size_t n = 0; n <= count && result == 0; n++) {
        struct np_guarded memory = np_guarded_open(n ? n : 1);
        memcpy(memory.base, bytes, n);
        result = np_ws_read(ws, frame, memory.base, n);
        np_guarded_close(&memory);
    }
    return result;
}

static int fault_of(const char *head, size_t bytes)
{
    struct np_ws ws = {0};
    struct np_ws_frame frame;
    return read_head(&ws, &frame, (const uint8_t *)head, bytes);
}

static void heads_are_read_at_every_length(void **state)
{
    static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 1u << 31, INT64_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint8_t head[NP_WS_HEAD_MAX_BYTES];
        uint8_t *end = np_ws_write(head, NP_WS_FIN | NP_WS_BINARY, lengths[i]);
        assert_true(end - head <= NP_WS_ANSWER_HEAD_MAX_BYTES);
        head[1] |= 0x80; /* a client masks */
        memcpy(end, KEY, 4);
        size_t bytes = (size_t)(end + 4 - head);
        struct np_ws ws = {0};
        struct np_ws_frame frame;
        assert_int_equal(read_head(&ws, &frame, head, bytes), bytes);
        assert_int_equal(frame.head_bytes, bytes);
        assert_true(frame.payload_bytes == lengths[i]);
        assert_int_equal(frame.opcode, NP_WS_BINARY);
        assert_true(frame.is_final);
        assert_memory_equal(frame.key, KEY, 4);
    }
}

static void heads_are_judged(void **state)
{
    int fault = -NP_WS_PROTOCOL_ERROR;
    (void)state;
    assert_int_equal(fault_of("\x82\x00", 2), fault);     /* not masked */
    assert_int_equal(fault_of("\xc2\x80" KEY, 6), fault); /* RSV1 without compression */
    assert_int_equal(fault_of("\xa2\x80" KEY, 6), fault); /* RSV2 */
    assert_int_equal(fault_of("\x92\x80" KEY, 6), fault); /* RSV3 */
    assert_int_equal(fault_of("\x80\x80" KEY, 6), fault); /* goes on with nothing */
    for (int opcode = 0; opcode < 16; opcode++) {
        char head[6] = {(char)(0x80 | opcode), (char)0x80, 1, 2, 3, 4};
        int is_known = opcode == 1 || opcode == 2 || (opcode >= 8 && opcode <= 10);
        assert_int_equal(fault_of(head, 6), is_known ? 6 : fault);
    }
    assert_int_equal(fault_of("\x09\x80" KEY, 6), fault);         /* a ping in parts */
    assert_int_equal(fault_of("\x89\xfe\x00\x7e" KEY, 8), fault); /* a ping of 126 bytes */
    assert_int_equal(fault_of("\x89\xfd" KEY, 6), 6);             /* of 125 */
    assert_int_equal(fault_of("\x82\xfe\x00\x7d" KEY, 8), fault); /* 125 in two bytes */
    assert_int_equal(fault_of("\x82\xff\0\0\0\0\0\0\xff\xff" KEY, 14), fault);
    assert_int_equal(fault_of("\x82\xff\x80\0\0\0\0\0\0\0" KEY, 14), fault);
}

static int next(struct np_ws *ws, uint8_t first)
{
    struct np_ws_frame frame;
    uint8_t head[6] = {first, 0x80 | 10, 1, 2, 3, 4};
    return np_ws_read(ws, &frame, head, 6);
}

static void fragments_come_in_order(void **state)
{
    struct np_ws ws = {0};
    (void)state;
    assert_int_equal(next(&ws, NP_WS_TEXT), 6);
    assert_int_equal(next(&ws, NP_WS_TEXT), -NP_WS_PROTOCOL_ERROR);
    assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_BINARY), -NP_WS_PROTOCOL_ERROR);
    assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_PING), 6); /* may come in between */
    assert_int_equal(next(&ws, NP_WS_CONTINUATION), 6);
    assert_int_equal(ws.opcode, NP_WS_TEXT);
    assert_int_equal(ws.message_bytes, 20);
    assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_CONTINUATION), 6);
    assert_int_equal(ws.message_bytes, 0);
    assert_int_equal(next(&ws, NP_WS_CONTINUATION), -NP_WS_PROTOCOL_ERROR);
    assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_TEXT), 6);
}

static void a_message_is_limited_before_it_comes(void **state)
{
    struct np_ws ws = {.message_max_bytes = 30};
    struct np_ws_frame frame;
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(next(&ws, NP_WS_TEXT), 6);
        assert_int_equal(next(&ws, NP_WS_CONTINUATION), 6);
        assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_CONTINUATION), 6); /* 30 in all */
    }
    assert_int_equal(np_ws_read(&ws, &frame, TEXT("\x82\x9f" KEY)), -NP_WS_TOO_BIG);
    assert_int_equal(next(&ws, NP_WS_TEXT), 6);
    assert_int_equal(np_ws_read(&ws, &frame, TEXT("\x80\x95" KEY)), -NP_WS_TOO_BIG);
    assert_int_equal(np_ws_read(&ws, &frame, TEXT("\x89\xbd" KEY)), 6); /* a ping does not count */
}

static void compression_is_said_by_the_first_frame(void **state)
{
    struct np_ws ws = {.compresses = 1};
    struct np_ws_frame frame;
    (void)state;
    assert_int_equal(np_ws_read(&ws, &frame, TEXT("\x41\x80" KEY)), 6);
    assert_true(frame.is_compressed);
    assert_int_equal(next(&ws, NP_WS_RSV1 | NP_WS_CONTINUATION), -NP_WS_PROTOCOL_ERROR);
    assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_RSV1 | NP_WS_PING), -NP_WS_PROTOCOL_ERROR);
    assert_int_equal(next(&ws, NP_WS_FIN | NP_WS_CONTINUATION), 6);
    assert_int_equal(next(&ws, NP_WS_FIN | 0x20 | NP_WS_TEXT), -NP_WS_PROTOCOL_ERROR);
}

static void close_codes_and_keys_are_judged(void **state)
{
    static const unsigned good[] = {1000, 1001, 1003, 1007, 1014, 3000, 4999};
    static const unsigned bad[] = {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535};
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(np_ws_is_close_code(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(np_ws_is_close_code(bad[i]));
    assert_true(np_ws_is_key(TEXT("dGhlIHNhbXBsZSBub25jZQ==")));
    assert_false(np_ws_is_key(TEXT("dGhlIHNhbXBsZSBub25jZQ=")));
    assert_false(np_ws_is_key(TEXT("dGhlIHNhbXBsZSBub25jZQ=x")));
    assert_false(np_ws_is_key(TEXT("dGhlIHNhbXBsZSBub25j!Q==")));
    assert_false(np_ws_is_key(TEXT("")));
}

/* ---- payloads -------------------------------------------------------------------------------- */

static void masks_are_taken_off_at_every_offset(void **state)
{
    static const uint8_t key[4] = {0x12, 0x34, 0x56, 0x78};
    (void)state;
    for (size_t count = 0; count <= 80; count++)
        for (uint64_t at = 0; at < 9; at++) {
            struct np_guarded from = np_guarded_open(count ? count : 1);
            struct np_guarded to = np_guarded_open(count ? count : 1);
            for (size_t i = 0; i < count; i++)
                from.base[i] = (uint8_t)i ^ key[(at + i) % 4];
            np_ws_unmask(to.base, from.base, count, key, at);
            np_ws_unmask(from.base, from.base, count, key, at); /* in place, too */
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(to.base[i], (uint8_t)i);
                assert_int_equal(from.base[i], (uint8_t)i);
            }
            np_guarded_close(&from);
            np_guarded_close(&to);
        }
}

static int is_utf8(const uint8_t *bytes, size_t count)
{
    struct np_utf8 state = {0};
    return np_utf8_check(&state, bytes, count) && np_utf8_is_whole(&state);
}

/* Every code point, as RFC 3629 writes it, and the surrogates, which it does not. */
static void every_character_is_known(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t bytes[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = n - 1; i > 0; i--)
            bytes[i] = 0x80 | ((c >> (6 * (n - 1 - i))) & 0x3f);
        bytes[0] = (uint8_t)(first[n] | c >> (6 * (n - 1)));
        assert_int_equal(is_utf8(bytes, n), c < 0xd800 || c > 0xdfff);
        if (n > 1)
            assert_false(is_utf8(bytes, n - 1));
    }
}

static void what_is_not_utf8_is_refused_at_its_first_byte(void **state)
{
    static const struct {
        const char *text;
        size_t bad; /* index of the first byte that cannot be */
    } samples[] = {
        {"a\x80", 1},
        {"\xc0\x80", 0},
        {"\xc1\xbf", 0},
        {"\xe0\x9f\xbf", 1},
        {"\xed\xa0\x80", 1},
        {"\xf0\x8f\xbf\xbf", 1},
        {"\xf4\x90\x80\x80", 1},
        {"\xf5\x80", 0},
        {"\xff", 0},
        {"\xe2\x82"
         "a",
         2},
        {"\xc3\xc3", 1},
        {"0123456789abcdef0123\xfe", 20},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        struct np_utf8 utf8 = {0};
        const uint8_t *text = (const uint8_t *)samples[i].text;
        assert_true(np_utf8_check(&utf8, text, samples[i].bad));
        assert_false(np_utf8_check(&utf8, text + samples[i].bad, 1));
        assert_false(is_utf8(text, strlen(samples[i].text)));
    }
}

static void utf8_is_followed_over_every_cut(void **state)
{
    static const char text[] = "ascii before \xc3\xa9 \xe2\x82\xac and behind, sixteen bytes \xf0"
                               "\x9f\x98\x80 0123456789abcdef0123456789abcdef";
    size_t bytes = sizeof(text) - 1;
    (void)state;
    for (size_t cut = 0; cut <= bytes; cut++) {
        struct np_utf8 utf8 = {0};
        struct np_guarded head = np_guarded_open(cut ? cut : 1);
        memcpy(head.base, text, cut);
        assert_true(np_utf8_check(&utf8, head.base, cut));
        assert_true(np_utf8_check(&utf8, (const uint8_t *)text + cut, bytes - cut));
        assert_true(np_utf8_is_whole(&utf8));
        np_guarded_close(&head);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_read_at_every_length),
        cmocka_unit_test(heads_are_judged),
        cmocka_unit_test(fragments_come_in_order),
        cmocka_unit_test(a_message_is_limited_before_it_comes),
        cmocka_unit_test(compression_is_said_by_the_first_frame),
        cmocka_unit_test(close_codes_and_keys_are_judged),
        cmocka_unit_test(masks_are_taken_off_at_every_offset),
        cmocka_unit_test(every_character_is_known),
        cmocka_unit_test(what_is_not_utf8_is_refused_at_its_first_byte),
        cmocka_unit_test(utf8_is_followed_over_every_cut),
    };
    return NP_TEST_MAIN("test_websocket", tests);
}
