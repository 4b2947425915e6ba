/* np_proxy.h - who the client is, when a proxy says so: the PROXY protocol, and whom to believe.
 *
 * Purpose   A proxy that passes bytes on, and not requests, says in front of the first byte whose
 *           they are: "The PROXY protocol, versions 1 & 2" of HAProxy. np_proxy_read reads that,
 *           and takes nothing for it that is not. Anybody could say it, so np_network tells from
 *           which addresses it counts.
 * Errors    -1: not such a header, or not a network.
 * Threads   Any; no state.
 */
#ifndef NP_PROXY_H
#define NP_PROXY_H

#include <stddef.h>
#include <stdint.h>

#include "io/np_sock.h"

/* Version 1 has 107 bytes at most. Version 2 has 16, the addresses, and what its sender likes to
 * add; the usual additions have some hundred bytes. */
#define NP_PROXY_MAX_BYTES 2048

struct np_proxy {
    /* family AF_UNSPEC: the proxy speaks for itself (LOCAL), or does not say (UNKNOWN, Unix). */
    struct np_peer source, target;
};

/* Reads the header at the front of `data`. Its size in bytes; 0: all of `data` belongs to
 * it, and more has to come. */
ptrdiff_t np_proxy_read(const uint8_t *data, size_t size, struct np_proxy *proxy);

/* A network: an address and how many of its bits count. */
struct np_network {
    uint16_t family; /* AF_INET or AF_INET6; AF_UNSPEC: every address */
    uint16_t bits;
    uint8_t address[16];
};

/* An address as text, or with a port: 1.2.3.4, 1.2.3.4:80, ::1, [::1], [::1]:80. 0 or -1. */
int np_peer_read(const uint8_t *text, size_t size, struct np_peer *peer);

/* An IPv4 address in the clothes of IPv6 (::ffff:1.2.3.4) is one of IPv4. */
int np_network_has(const struct np_network *network, const struct np_peer *peer);
int np_networks_have(const struct np_network *networks, size_t count, const struct np_peer *peer);

/* One X-Forwarded-For: addresses with commas between them, to which each proxy has added its peer.
 * Finds the last one that is not a trusted proxy's, whatever it is. 1: *at, *bytes are its place,
 * and *peer is what it is, family AF_UNSPEC when it is no address. 0: all are trusted; place and
 * peer are those of the first one. -1: there is none. */
int np_forwarded_client(const uint8_t *value, size_t size, const struct np_network *networks,
                        size_t networks_count, size_t *at, size_t *bytes, struct np_peer *peer);

#endif
