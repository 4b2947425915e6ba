# The C of csrc/tls, for Cython, and what finds an OpenSSL; the headers say what it is.

from libc.stdint cimport uint8_t

cdef extern from "dlfcn.h" nogil:
    enum:
        RTLD_LAZY
        RTLD_NOLOAD
    void *dlopen(const char *path, int flags)

cdef extern from "Python.h":
    void *PyCFunction_GetFunction(object function) except NULL

cdef extern from "tls/np_bio.h" nogil:
    struct np_bio:
        size_t in_bytes, out_bytes, spill_bytes
        const uint8_t *data "in"
        uint8_t *spill

    void np_bio_lend_in(np_bio *bio, const void *data, size_t size_bytes)
    void np_bio_lend_out(np_bio *bio, void *data, size_t cap_bytes)
    size_t np_bio_take(np_bio *bio, void *to, size_t max_bytes)
    int np_bio_put(np_bio *bio, const void *data, size_t size_bytes)
    void np_bio_drop_spill(np_bio *bio)

cdef extern from "tls/np_openssl.h" nogil:
    enum:
        NP_SSL_ERROR_WANT_READ
        NP_SSL_ERROR_WANT_WRITE
        NP_SSL_ERROR_ZERO_RETURN
        NP_BIO_TYPE_SOURCE_SINK
        NP_BIO_FLAGS_RETRY_READ
        NP_BIO_FLAGS_RETRY_ALL
        NP_BIO_CTRL_PENDING
        NP_BIO_CTRL_FLUSH
        NP_BIO_CTRL_DUP
        NP_BIO_CTRL_WPENDING

    struct np_openssl:
        int (*SSL_read)(void *ssl, void *buf, int size_bytes) noexcept nogil
        int (*SSL_write)(void *ssl, const void *buf, int size_bytes) noexcept nogil
        int (*SSL_get_error)(const void *ssl, int result) noexcept nogil
        int (*SSL_pending)(const void *ssl) noexcept nogil
        void *(*SSL_get_ex_data)(const void *ssl, int index) noexcept nogil
        void *(*SSL_get_SSL_CTX)(const void *ssl) noexcept nogil
        void *(*SSL_get_rbio)(const void *ssl) noexcept nogil
        void *(*SSL_get_wbio)(const void *ssl) noexcept nogil
        void (*SSL_set_bio)(void *ssl, void *rbio, void *wbio) noexcept nogil
        void *(*SSL_get_certificate)(const void *ssl) noexcept nogil
        int (*i2d_X509)(const void *certificate, unsigned char **at) noexcept nogil
        void *(*BIO_meth_new)(int type, const char *name) noexcept nogil
        void (*BIO_meth_free)(void *method) noexcept nogil
        int (*BIO_meth_set_read)(void *method, int (*read)(void *, char *, int) noexcept nogil
                                 ) noexcept nogil
        int (*BIO_meth_set_write)(void *method,
                                  int (*write)(void *, const char *, int) noexcept nogil
                                  ) noexcept nogil
        int (*BIO_meth_set_ctrl)(void *method,
                                 long (*ctrl)(void *, int, long, void *) noexcept nogil
                                 ) noexcept nogil
        void *(*BIO_new)(const void *method) noexcept nogil
        int (*BIO_free)(void *bio) noexcept nogil
        int (*BIO_up_ref)(void *bio) noexcept nogil
        void (*BIO_set_data)(void *bio, void *data) noexcept nogil
        void *(*BIO_get_data)(void *bio) noexcept nogil
        void (*BIO_set_init)(void *bio, int is_ready) noexcept nogil
        void (*BIO_set_flags)(void *bio, int flags) noexcept nogil
        void (*BIO_clear_flags)(void *bio, int flags) noexcept nogil
        void (*ERR_clear_error)() noexcept nogil
        const char *(*OpenSSL_version)(int what) noexcept nogil

    int np_openssl_load(np_openssl *table, void *handle, const void *home)
