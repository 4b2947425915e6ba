/* np_loadtls.c - see np_loadtls.h. */
#define _GNU_SOURCE
#include "bench/np_loadtls.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* OpenSSL's values, part of its stable interface (openssl/ssl.h). */
#define CTRL_MODE 33
#define CTRL_SET_READ_AHEAD 41
#define MODE_PARTIAL_WRITES 3 /* and from a buffer that moves */
#define WANT_READ 2
#define WANT_WRITE 3
#define ZERO_RETURN 6

struct functions {
    const void *(*TLS_client_method)(void);
    void *(*SSL_CTX_new)(const void *method);
    void (*SSL_CTX_free)(void *context);
    long (*SSL_CTX_ctrl)(void *context, int command, long number, void *pointer);
    void *(*SSL_new)(void *context);
    void (*SSL_free)(void *ssl);
    int (*SSL_set_fd)(void *ssl, int fd);
    int (*SSL_connect)(void *ssl);
    int (*SSL_read)(void *ssl, void *data, int bytes);
    int (*SSL_write)(void *ssl, const void *data, int bytes);
    int (*SSL_has_pending)(const void *ssl);
    int (*SSL_get_error)(const void *ssl, int result);
    void (*ERR_clear_error)(void);
};

#define FIELD(name) {#name, offsetof(struct functions, name)}

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    FIELD(TLS_client_method), FIELD(SSL_CTX_new), FIELD(SSL_CTX_free),    FIELD(SSL_CTX_ctrl),
    FIELD(SSL_new),           FIELD(SSL_free),    FIELD(SSL_set_fd),      FIELD(SSL_connect),
    FIELD(SSL_read),          FIELD(SSL_write),   FIELD(SSL_has_pending), FIELD(SSL_get_error),
    FIELD(ERR_clear_error),
};

#define FIELDS_COUNT (sizeof(fields) / sizeof(fields[0]))

_Static_assert(FIELDS_COUNT * sizeof(void *) == sizeof(struct functions), "one is not loaded");

struct np_loadtls {
    struct functions fn;
    void *library;
    void *context;
};

static int load_functions(struct np_loadtls *tls)
{
    void *address;
    size_t i;

    for (i = 0; i < FIELDS_COUNT; i++) {
        address = dlsym(tls->library, fields[i].name);
        if (address == NULL)
            return -ENOTSUP;
        memcpy((char *)&tls->fn + fields[i].offset, &address, sizeof(address));
    }
    return 0;
}

int np_loadtls_open(struct np_loadtls **out, const char *library)
{
    struct np_loadtls *tls = calloc(1, sizeof(*tls));
    int err = -ENOTSUP;

    *out = NULL;
    if (tls == NULL)
        return -ENOMEM;
    tls->library = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    if (tls->library)
        err = load_functions(tls);
    if (err < 0)
        goto fail;
    err = -ENOMEM;
    tls->context = tls->fn.SSL_CTX_new(tls->fn.TLS_client_method());
    if (tls->context == NULL)
        goto fail;
    tls->fn.SSL_CTX_ctrl(tls->context, CTRL_MODE, MODE_PARTIAL_WRITES, NULL);
    tls->fn.SSL_CTX_ctrl(tls->context, CTRL_SET_READ_AHEAD, 1, NULL); /* one read a record */
    *out = tls;
    return 0;
fail:
    np_loadtls_close(tls);
    return err;
}

void np_loadtls_close(struct np_loadtls *tls)
{
    if (tls == NULL)
        return;
    if (tls->context)
        tls->fn.SSL_CTX_free(tls->context);
    if (tls->library)
        dlclose(tls->library);
    free(tls);
}

int np_loadtls_connect(struct np_loadtls *tls, int fd, void **session)
{
    void *ssl = tls->fn.SSL_new(tls->context);

    *session = NULL;
    if (ssl == NULL)
        return -ENOMEM;
    tls->fn.ERR_clear_error();
    if (tls->fn.SSL_set_fd(ssl, fd) != 1 || tls->fn.SSL_connect(ssl) != 1) {
        tls->fn.ERR_clear_error();
        tls->fn.SSL_free(ssl);
        return -EPROTO;
    }
    *session = ssl;
    return 0;
}

void np_loadtls_end(struct np_loadtls *tls, void *session)
{
    if (session)
        tls->fn.SSL_free(session);
}

static ptrdiff_t outcome(struct np_loadtls *tls, void *session, int result)
{
    int error;

    if (result > 0)
        return result;
    error = tls->fn.SSL_get_error(session, result);
    if (error == WANT_READ || error == WANT_WRITE)
        return -EAGAIN;
    if (error == ZERO_RETURN)
        return 0;
    tls->fn.ERR_clear_error();
    return -EPROTO;
}

ptrdiff_t np_loadtls_send(struct np_loadtls *tls, void *session, const void *data, size_t bytes)
{
    int part = bytes < INT_MAX ? (int)bytes : INT_MAX;

    tls->fn.ERR_clear_error();
    return outcome(tls, session, tls->fn.SSL_write(session, data, part));
}

ptrdiff_t np_loadtls_recv(struct np_loadtls *tls, void *session, void *data, size_t bytes)
{
    int part = bytes < INT_MAX ? (int)bytes : INT_MAX;

    tls->fn.ERR_clear_error();
    return outcome(tls, session, tls->fn.SSL_read(session, data, part));
}

int np_loadtls_has_more(struct np_loadtls *tls, void *session)
{
    return tls->fn.SSL_has_pending(session);
}
