/* fuzz_websocket.c - frames, masks and UTF-8 beside what RFC 6455 and RFC 3629 say, word by word.
 *
 * One input is what a client sends on one connection. Each head is shown to the reader a byte at a
 * time: it has to say nothing, then its verdict, and the same verdict of all that is longer.
 */
#include "np_fuzz.h"

#include "http/np_utf8.h"
#include "http/np_websocket.h"

enum { INCOMPLETE = 0, TEXT_MAX_BYTES = NP_FUZZ_INPUT_MAX_BYTES };

/* ---- frames --------------------------------------------------------------------------------- */

/* The verdict on a head that is there in full; `frame` is filled when it is good. */
static int judge(const struct np_ws *ws, struct np_ws_frame *frame, const uint8_t *head)
{
    int length = head[1] & 0x7f, is_control = (head[0] & 8) != 0, is_first;
    int head_bytes = 6 + (length == 126 ? 2 : length == 127 ? 8 : 0);
    uint64_t bytes = 0;
    for (int i = 2; i < head_bytes - 4; i++)
        bytes = bytes * 256 + head[i];
    bytes = length < 126 ? (uint64_t)length : bytes;
    *frame = (struct np_ws_frame){.payload_bytes = bytes,
                                  .opcode = head[0] & 15,
                                  .is_final = head[0] >> 7,
                                  .is_compressed = (head[0] >> 6) & 1,
                                  .head_bytes = (uint8_t)head_bytes};
    memcpy(frame->key, head + head_bytes - 4, 4);
    is_first = frame->opcode == NP_WS_TEXT || frame->opcode == NP_WS_BINARY;
    if ((head[0] & 0x30) || !(head[1] & 0x80) || (length == 126 && bytes < 126) ||
        (length == 127 && (bytes < 65536 || bytes >> 63)))
        return -NP_WS_PROTOCOL_ERROR;
    if (frame->is_compressed && !(ws->compresses && is_first))
        return -NP_WS_PROTOCOL_ERROR;
    if (is_control)
        return frame->opcode > NP_WS_PONG || !frame->is_final || length > 125
                   ? -NP_WS_PROTOCOL_ERROR
                   : head_bytes;
    if (is_first ? ws->opcode != 0 : frame->opcode != NP_WS_CONTINUATION || ws->opcode == 0)
        return -NP_WS_PROTOCOL_ERROR;
    if (ws->message_max_bytes &&
        (bytes > ws->message_max_bytes || ws->message_bytes + bytes > ws->message_max_bytes))
        return -NP_WS_TOO_BIG;
    return head_bytes;
}

static int is_frame_same(const struct np_ws_frame *one, const struct np_ws_frame *other)
{
    return one->payload_bytes == other->payload_bytes && one->opcode == other->opcode &&
           one->is_final == other->is_final && one->is_compressed == other->is_compressed &&
           one->head_bytes == other->head_bytes && memcmp(one->key, other->key, 4) == 0;
}

/* The state behind a good frame. */
static void follow(struct np_ws *ws, const struct np_ws_frame *frame)
{
    if (frame->opcode & 8)
        return;
    if (frame->opcode != NP_WS_CONTINUATION)
        ws->opcode = frame->opcode;
    ws->message_bytes += frame->payload_bytes;
    if (frame->is_final)
        ws->message_bytes = ws->opcode = 0;
}

/* What the reader says of the first bytes, however few of them there are. */
static int read_head(struct np_ws *ws, struct np_ws_frame *frame, const uint8_t *bytes,
                     size_t count)
{
    uint8_t head[NP_WS_HEAD_MAX_BYTES] = {0};
    struct np_ws_frame wanted_frame;
    int verdict = INCOMPLETE, is_seen = 0;
    size_t seen_bytes = count < sizeof(head) ? count : sizeof(head);
    memcpy(head, bytes, seen_bytes);
    int wanted = judge(ws, &wanted_frame, head);
    for (size_t there = 0; there <= seen_bytes; there++) {
        struct np_ws state = *ws;
        uint8_t *piece = np_fuzz_copy(bytes, there);
        int result = np_ws_read(&state, frame, piece, there);
        free(piece);
        NP_ASSERT(!is_seen || result == verdict);
        if (result == INCOMPLETE || is_seen)
            continue;
        is_seen = 1;
        verdict = result;
        NP_ASSERT(result == wanted || result == -NP_WS_PROTOCOL_ERROR);
        NP_ASSERT(result < 0 || (size_t)result == there);
    }
    if (!is_seen) /* all that is missing could still be good */
        NP_ASSERT(seen_bytes < 2 || seen_bytes < wanted_frame.head_bytes);
    if (seen_bytes >= wanted_frame.head_bytes)
        NP_ASSERT(verdict == wanted);
    if (verdict <= 0)
        return verdict;
    NP_ASSERT(np_ws_read(ws, frame, bytes, count) == verdict);
    NP_ASSERT(is_frame_same(frame, &wanted_frame));
    return verdict;
}

/* ---- texts ---------------------------------------------------------------------------------- */

/* 1: a character begins at `p` and has all of its *count bytes among the `left` ones. */
static int is_character(const uint8_t *p, size_t left, int *count)
{
    static const uint32_t LOWEST[] = {0, 0, 0x80, 0x800, 0x10000};
    *count = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (*count == 0 || (size_t)*count > left)
        return 0;
    uint32_t point = *count == 1 ? p[0] : p[0] & (0x7fu >> *count);
    for (int i = 1; i < *count; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        point = point << 6 | (p[i] & 0x3f);
    }
    return point >= LOWEST[*count] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
}

/* Whether more bytes could make a character of `left` (1 to 3) ones. */
static int could_become(const uint8_t *p, size_t left)
{
    static const uint8_t FILLS[] = {0x80, 0xbf};
    for (int i = 0; i < 2; i++) {
        uint8_t filled[4];
        int count;
        memset(filled, FILLS[i], sizeof(filled));
        memcpy(filled, p, left);
        if (is_character(filled, sizeof(filled), &count))
            return 1;
    }
    return 0;
}

/* 1: text as far as it goes; *is_whole: it ends with a character. */
static int is_text(const uint8_t *p, size_t left, int *is_whole)
{
    int count;
    for (; left && is_character(p, left, &count); left -= (size_t)count)
        p += count;
    *is_whole = left == 0;
    return left == 0 || (left < 4 && could_become(p, left));
}

struct text {
    struct np_utf8 state;
    size_t bytes;
    uint8_t all[TEXT_MAX_BYTES];
};

static int add_text(struct text *text, const uint8_t *bytes, size_t count)
{
    int is_whole;
    memcpy(text->all + text->bytes, bytes, count);
    text->bytes += count;
    int is_good = np_utf8_check(&text->state, bytes, count);
    NP_ASSERT(is_good == is_text(text->all, text->bytes, &is_whole));
    NP_ASSERT(!is_good || np_utf8_is_whole(&text->state) == is_whole);
    return is_good;
}

/* ---- payloads ------------------------------------------------------------------------------- */

/* Unmasks a payload in two parts, in place and elsewhere, and reads it as text. 0: no text. */
static int take_payload(struct text *text, const struct np_ws_frame *frame, const uint8_t *bytes,
                        size_t count, size_t cut)
{
    uint8_t *masked = np_fuzz_copy(bytes, count), *plain = np_fuzz_copy(bytes, count);
    int is_good = 1;
    cut = count ? cut % (count + 1) : 0;
    np_ws_unmask(masked, masked, cut, frame->key, 0);
    np_ws_unmask(masked + cut, masked + cut, count - cut, frame->key, cut);
    np_ws_unmask(plain, bytes, count, frame->key, 0);
    for (size_t i = 0; i < count; i++)
        NP_ASSERT(plain[i] == (bytes[i] ^ frame->key[i % 4]));
    NP_ASSERT(np_fuzz_is_same(masked, plain, count));
    if (frame->opcode < NP_WS_CLOSE)
        is_good = add_text(text, plain, cut) && add_text(text, plain + cut, count - cut);
    free(masked);
    free(plain);
    return is_good;
}

/* A head of ours, with a mask put on it, is read as it was written. */
static void check_written(uint64_t payload_bytes)
{
    uint8_t head[NP_WS_HEAD_MAX_BYTES];
    uint8_t *ours = malloc(NP_WS_ANSWER_HEAD_MAX_BYTES);
    struct np_ws ws = {0};
    struct np_ws_frame frame;
    NP_ASSERT(ours != NULL);
    payload_bytes &= INT64_MAX;
    size_t bytes = (size_t)(np_ws_write(ours, NP_WS_FIN | NP_WS_BINARY, payload_bytes) - ours);
    memcpy(head, ours, bytes);
    memcpy(head + bytes, "\1\2\3\4", 4);
    head[1] |= 0x80;
    NP_ASSERT(np_ws_read(&ws, &frame, head, bytes + 4) == (int)bytes + 4);
    NP_ASSERT(frame.payload_bytes == payload_bytes && frame.opcode == NP_WS_BINARY);
    NP_ASSERT(frame.is_final && !frame.is_compressed);
    free(ours);
}

static void check_key(const uint8_t *value, size_t bytes)
{
    static const char SET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int is_key = bytes == 24 && memcmp(value + 22, "==", 2) == 0;
    for (int i = 0; is_key && i < 22; i++)
        is_key = value[i] && strchr(SET, value[i]) != NULL;
    NP_ASSERT(np_ws_is_key(value, bytes) == is_key);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct text text;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < TEXT_MAX_BYTES ? bytes : TEXT_MAX_BYTES);
    uint8_t how = np_fuzz_byte(&fuzz);
    struct np_ws ws = {.compresses = how & 1, .message_max_bytes = how & 2 ? how : 0}, model = ws;
    check_written(np_fuzz_number(&fuzz, 8) >> np_fuzz_below(&fuzz, 64));
    check_key(fuzz.at, np_fuzz_left(&fuzz));
    text = (struct text){0};
    while (np_fuzz_left(&fuzz)) {
        struct np_ws_frame frame;
        size_t payload;
        int head = read_head(&ws, &frame, fuzz.at, np_fuzz_left(&fuzz));
        if (head <= 0)
            break;
        follow(&model, &frame);
        NP_ASSERT(ws.opcode == model.opcode && ws.message_bytes == model.message_bytes);
        fuzz.at += head;
        const uint8_t *at = np_fuzz_bytes(&fuzz, (size_t)frame.payload_bytes, &payload);
        if (!take_payload(&text, &frame, at, payload, how))
            break;
        if (ws.opcode == 0 && frame.opcode < NP_WS_CLOSE)
            text = (struct text){0};
    }
    return 0;
}
