/* np_websocket.c - frames of WebSocket. */
#include "http/np_websocket.h"

#include <string.h>

enum {
    RESERVED_BITS = 0x70,
    OPCODE_BITS = 0x0f,
    MASKED = 0x80,
    LENGTH_BITS = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
    CONTROL_BIT = 8,
    KEY_TEXT_BYTES = 24,
};

static uint64_t number_at(const uint8_t *bytes, int count)
{
    uint64_t number = 0;
    for (int i = 0; i < count; i++)
        number = number << 8 | bytes[i];
    return number;
}

/* Whether this opcode may come now. */
static int is_in_order(const struct np_ws *ws, const struct np_ws_frame *frame)
{
    if (frame->opcode & CONTROL_BIT)
        return frame->opcode <= NP_WS_PONG && frame->is_final && !frame->is_compressed;
    if (frame->opcode == NP_WS_CONTINUATION) /* the first frame says that a message is compressed */
        return ws->opcode != 0 && !frame->is_compressed;
    return frame->opcode <= NP_WS_BINARY && ws->opcode == 0;
}

/* Bytes of the head that the first two announce. */
static int head_bytes_of(const uint8_t *bytes)
{
    int length = bytes[1] & LENGTH_BITS;
    return 2 + (length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0) + 4;
}

/* The payload's length: 0, or a close code. In as few bytes as it needs (RFC 6455 5.2). */
static int read_length(struct np_ws_frame *frame, const uint8_t *bytes)
{
    int length = bytes[1] & LENGTH_BITS;
    if (length < LENGTH_16) {
        frame->payload_bytes = (uint64_t)length;
        return 0;
    }
    frame->payload_bytes = number_at(bytes + 2, length == LENGTH_16 ? 2 : 8);
    if (length == LENGTH_16)
        return frame->payload_bytes < LENGTH_16 ? -NP_WS_PROTOCOL_ERROR : 0;
    if (frame->payload_bytes <= UINT16_MAX || frame->payload_bytes > INT64_MAX)
        return -NP_WS_PROTOCOL_ERROR;
    return 0;
}

/* The frame is part of a message: counts it. 0 or a close code. */
static int join(struct np_ws *ws, const struct np_ws_frame *frame)
{
    if (frame->opcode & CONTROL_BIT)
        return 0;
    uint64_t room_bytes = ws->message_max_bytes - ws->message_bytes;
    if (ws->message_max_bytes && frame->payload_bytes > room_bytes)
        return -NP_WS_TOO_BIG;
    if (frame->is_final) {
        ws->opcode = 0;
        ws->message_bytes = 0;
        return 0;
    }
    if (frame->opcode != NP_WS_CONTINUATION)
        ws->opcode = frame->opcode;
    ws->message_bytes += frame->payload_bytes;
    return 0;
}

int np_ws_read(struct np_ws *ws, struct np_ws_frame *frame, const uint8_t *bytes, size_t count)
{
    if (count == 0)
        return 0;
    frame->opcode = bytes[0] & OPCODE_BITS;
    frame->is_final = (bytes[0] & NP_WS_FIN) != 0;
    frame->is_compressed = (bytes[0] & NP_WS_RSV1) != 0;
    int allowed_bits = ws->compresses ? NP_WS_RSV1 : 0;
    if ((bytes[0] & RESERVED_BITS & ~allowed_bits) || !is_in_order(ws, frame))
        return -NP_WS_PROTOCOL_ERROR;
    if (count == 1)
        return 0;
    if (!(bytes[1] & MASKED))
        return -NP_WS_PROTOCOL_ERROR; /* RFC 6455 5.1 */
    if ((frame->opcode & CONTROL_BIT) && (bytes[1] & LENGTH_BITS) > NP_WS_CONTROL_MAX_BYTES)
        return -NP_WS_PROTOCOL_ERROR;
    int head_bytes = head_bytes_of(bytes);
    if (count < (size_t)head_bytes)
        return 0;
    int fault = read_length(frame, bytes);
    if (fault == 0)
        fault = join(ws, frame);
    if (fault)
        return fault;
    memcpy(frame->key, bytes + head_bytes - 4, 4);
    frame->head_bytes = (uint8_t)head_bytes;
    return head_bytes;
}

void np_ws_unmask(uint8_t *to, const uint8_t *from, size_t count, const uint8_t key[4], uint64_t at)
{
    uint8_t turned[8];
    for (int i = 0; i < 8; i++)
        turned[i] = key[(at + (uint64_t)i) & 3];
    uint64_t mask;
    memcpy(&mask, turned, sizeof(mask));
    size_t i = 0;
    for (; count - i >= 32; i += 32) { /* four words: two vectors, or four registers */
        uint64_t words[4];
        memcpy(words, from + i, sizeof(words));
        words[0] ^= mask;
        words[1] ^= mask;
        words[2] ^= mask;
        words[3] ^= mask;
        memcpy(to + i, words, sizeof(words));
    }
    for (; i < count; i++)
        to[i] = from[i] ^ turned[i & 7];
}

uint8_t *np_ws_write(uint8_t *at, uint8_t first, uint64_t payload_bytes)
{
    *at++ = first;
    if (payload_bytes < LENGTH_16) {
        *at++ = (uint8_t)payload_bytes;
        return at;
    }
    int count = payload_bytes <= UINT16_MAX ? 2 : 8;
    *at++ = count == 2 ? LENGTH_16 : LENGTH_64;
    for (int i = count - 1; i >= 0; i--)
        *at++ = (uint8_t)(payload_bytes >> (8 * i));
    return at;
}

int np_ws_is_close_code(unsigned code)
{
    if (code >= 3000 && code <= 4999)
        return 1;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

static int is_base64(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

int np_ws_is_key(const uint8_t *value, size_t bytes)
{
    if (bytes != KEY_TEXT_BYTES || value[22] != '=' || value[23] != '=')
        return 0;
    for (int i = 0; i < 22; i++)
        if (!is_base64(value[i]))
            return 0;
    return 1;
}
