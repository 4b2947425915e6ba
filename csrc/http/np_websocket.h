/* np_websocket.h - frames of WebSocket, as a server reads and writes them (RFC 6455).
 *
 * Purpose   The head of a frame is read and judged before its payload is waited for: a message that
 *           would be too large is refused with its first bytes. The payload of a peer is unmasked
 *           where it is, or on its way to where it is wanted.
 * Use       np_ws_read until it is not 0; then frame.payload_bytes bytes follow. np_ws_unmask each
 *           part of them as it comes, with the number of bytes before it. The texts of a message go
 *           through np_utf8.h, unless they are compressed.
 * Not here  The accept key of the handshake (SHA-1: once a connection, left to hashlib), joining
 *           fragments, compression, time-outs.
 * Errors    np_ws_read: the negative close code that the peer is told (1002, 1009).
 * Threads   One at a time.
 */
#ifndef NP_WEBSOCKET_H
#define NP_WEBSOCKET_H

#include <stddef.h>
#include <stdint.h>

enum np_ws_opcode {
    NP_WS_CONTINUATION = 0,
    NP_WS_TEXT = 1,
    NP_WS_BINARY = 2,
    NP_WS_CLOSE = 8,
    NP_WS_PING = 9,
    NP_WS_PONG = 10,
};

enum {
    NP_WS_FIN = 0x80,  /* bits of a frame's first byte */
    NP_WS_RSV1 = 0x40, /* compressed (RFC 7692) */
    NP_WS_HEAD_MAX_BYTES = 14,
    NP_WS_ANSWER_HEAD_MAX_BYTES = 10, /* a server does not mask */
    NP_WS_CONTROL_MAX_BYTES = 125,
    NP_WS_PROTOCOL_ERROR = 1002,
    NP_WS_TOO_BIG = 1009,
};

/* Of one connection, for all of its messages. */
struct np_ws {
    uint64_t message_max_bytes; /* 0: nothing is too large */
    uint64_t message_bytes;     /* of the message that goes on */
    uint8_t opcode;             /* of that message; 0: none goes on */
    uint8_t compresses;         /* permessage-deflate was agreed on */
};

struct np_ws_frame {
    uint64_t payload_bytes;
    uint8_t opcode;   /* enum np_ws_opcode */
    uint8_t is_final; /* the last one of its message */
    uint8_t is_compressed;
    uint8_t head_bytes;
    uint8_t key[4]; /* what it is masked with */
};

/* Reads the head of a frame: its bytes, or 0 (not all of it is there yet), or a negative close
 * code. */
int np_ws_read(struct np_ws *ws, struct np_ws_frame *frame, const uint8_t *bytes, size_t count);
/* Writes `count` bytes of payload, unmasked, to `to`, which may be `from`. `at`: how many bytes of
 * the frame's payload came before them. */
void np_ws_unmask(uint8_t *to, const uint8_t *from, size_t count, const uint8_t key[4],
                  uint64_t at);
/* Writes the head of a frame of ours. first: an opcode, with NP_WS_FIN and NP_WS_RSV1 as wanted. */
uint8_t *np_ws_write(uint8_t *at, uint8_t first, uint64_t payload_bytes);
/* Whether a peer may close with this code (RFC 6455 7.4). */
int np_ws_is_close_code(unsigned code);
/* Whether this is a Sec-WebSocket-Key: sixteen bytes in base64. */
int np_ws_is_key(const uint8_t *value, size_t bytes);

#endif
