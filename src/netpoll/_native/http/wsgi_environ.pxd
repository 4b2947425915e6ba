# The seam of http/wsgi_environ.pyx.

from netpoll._native.http.wire cimport Wire


cdef dict environ_template(str scheme, str root_path, object multithread, object multiprocess,
                           object file_wrapper)
cdef dict environ_of(dict template, Wire wire)
