/* np_openssl.c - see np_openssl.h. */
#define _GNU_SOURCE
#include "tls/np_openssl.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define FIELD(name) {#name, offsetof(struct np_openssl, name)}

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    FIELD(SSL_read),
    FIELD(SSL_write),
    FIELD(SSL_get_error),
    FIELD(SSL_pending),
    FIELD(SSL_get_ex_data),
    FIELD(SSL_get_SSL_CTX),
    FIELD(SSL_get_rbio),
    FIELD(SSL_get_wbio),
    FIELD(SSL_set_bio),
    FIELD(SSL_get_certificate),
    FIELD(i2d_X509),
    FIELD(BIO_meth_new),
    FIELD(BIO_meth_free),
    FIELD(BIO_meth_set_read),
    FIELD(BIO_meth_set_write),
    FIELD(BIO_meth_set_ctrl),
    FIELD(BIO_new),
    FIELD(BIO_free),
    FIELD(BIO_up_ref),
    FIELD(BIO_set_data),
    FIELD(BIO_get_data),
    FIELD(BIO_set_init),
    FIELD(BIO_set_flags),
    FIELD(BIO_clear_flags),
    FIELD(ERR_clear_error),
    FIELD(OpenSSL_version),
};

#define FIELDS_COUNT (sizeof(fields) / sizeof(fields[0]))

_Static_assert(FIELDS_COUNT * sizeof(void *) == sizeof(struct np_openssl),
               "a function of the table is not loaded");

static int lives_in(const void *address, const void *home)
{
    Dl_info there, here;

    return dladdr(address, &there) && dladdr(home, &here) && there.dli_fbase == here.dli_fbase;
}

int np_openssl_load(struct np_openssl *table, void *handle, const void *home)
{
    struct np_openssl found;
    void *address;
    size_t i;

    for (i = 0; i < FIELDS_COUNT; i++) {
        address = dlsym(handle, fields[i].name);
        if (address == NULL || (home && !lives_in(address, home)))
            return -ENOENT;
        memcpy((char *)&found + fields[i].offset, &address, sizeof(address));
    }
    *table = found;
    return 0;
}
