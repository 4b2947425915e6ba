/* np_openssl.h - the OpenSSL that Python's ssl module has loaded already, called directly.
 *
 * Purpose   A table of the functions that the data path of a TLS connection needs. They are looked
 *           up at run time in the very library that Python's `_ssl` is linked with, so there is
 *           one OpenSSL in the process, one set of contexts, and nothing to link or to ship.
 * Model     np_openssl_load(table, handle, home): handle is dlopen's of the object that `_ssl` is
 *           in; dlsym then searches that object and what it was linked with, in this order. With
 *           `home` (an address inside that object) only functions of the object itself are taken:
 *           for an interpreter that has `_ssl` and OpenSSL built in, where a search would also
 *           find the libssl of somebody else.
 * Ownership The table holds code addresses; `_ssl` is never unloaded.
 * Errors    -ENOENT: a function is missing, or is not where it has to be. The table is then of no
 *           use, and nothing else has happened.
 * Threads   Loading: one at a time. The functions: OpenSSL's rules, one thread per SSL at a time.
 */
#ifndef NP_OPENSSL_H
#define NP_OPENSSL_H

#include <stddef.h>

/* OpenSSL's values, part of its stable interface (openssl/ssl.h, openssl/bio.h). */
#define NP_SSL_ERROR_NONE 0
#define NP_SSL_ERROR_WANT_READ 2
#define NP_SSL_ERROR_WANT_WRITE 3
#define NP_SSL_ERROR_ZERO_RETURN 6
#define NP_BIO_TYPE_SOURCE_SINK 0x0400
#define NP_BIO_FLAGS_RETRY_READ (0x01 | 0x08)
#define NP_BIO_FLAGS_RETRY_ALL (0x01 | 0x02 | 0x04 | 0x08)
#define NP_BIO_CTRL_PENDING 10
#define NP_BIO_CTRL_FLUSH 11
#define NP_BIO_CTRL_DUP 12
#define NP_BIO_CTRL_WPENDING 13

struct np_openssl {
    int (*SSL_read)(void *ssl, void *buf, int size_bytes);
    int (*SSL_write)(void *ssl, const void *buf, int size_bytes);
    int (*SSL_get_error)(const void *ssl, int result);
    int (*SSL_pending)(const void *ssl);
    void *(*SSL_get_ex_data)(const void *ssl, int index);
    void *(*SSL_get_SSL_CTX)(const void *ssl);
    void *(*SSL_get_rbio)(const void *ssl);
    void *(*SSL_get_wbio)(const void *ssl);
    void (*SSL_set_bio)(void *ssl, void *rbio, void *wbio);
    void *(*SSL_get_certificate)(const void *ssl);
    int (*i2d_X509)(const void *certificate, unsigned char **at);
    void *(*BIO_meth_new)(int type, const char *name);
    void (*BIO_meth_free)(void *method);
    int (*BIO_meth_set_read)(void *method, int (*read)(void *, char *, int));
    int (*BIO_meth_set_write)(void *method, int (*write)(void *, const char *, int));
    int (*BIO_meth_set_ctrl)(void *method, long (*ctrl)(void *, int, long, void *));
    void *(*BIO_new)(const void *method);
    int (*BIO_free)(void *bio);
    int (*BIO_up_ref)(void *bio);
    void (*BIO_set_data)(void *bio, void *data);
    void *(*BIO_get_data)(void *bio);
    void (*BIO_set_init)(void *bio, int is_ready);
    void (*BIO_set_flags)(void *bio, int flags);
    void (*BIO_clear_flags)(void *bio, int flags);
    void (*ERR_clear_error)(void);
    const char *(*OpenSSL_version)(int what);
};

int np_openssl_load(struct np_openssl *table, void *handle, const void *home);

#endif
