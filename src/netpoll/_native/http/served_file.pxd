# The seam of http/served_file.pyx: files that answers are made of.

from libc.stdint cimport int64_t

from netpoll._native.c cimport np_file_facts
from netpoll._native.http.wire cimport Wire
from netpoll._native.server.host cimport FileSpan


cdef class ServedFile:
    cdef bytes name             # as the system calls take it
    cdef readonly bytes data    # all of its content; None: `span` has it
    cdef FileSpan span
    cdef np_file_facts facts
    cdef str tag                # its etag, once it was asked for
    cdef readonly int64_t size


cdef class FileCache:
    cdef dict files             # path -> ServedFile, the one used last at the end
    cdef readonly int64_t kept_bytes
    cdef bint by_kernel

    cdef ServedFile known(self, object path)
    cdef ServedFile load(self, object path, object below)
    cdef int keep(self, object path, ServedFile file) except -1
    cdef int forget(self, object path) except -1


cdef class FileParts:
    cdef readonly ServedFile file
    cdef readonly list pieces   # bytes, or (offset, size) of the file
    cdef readonly int64_t size  # of all pieces


cdef bint is_plain_file(object filelike) except -1
cdef FileSpan span_of(int fd)
cdef int write_part(Wire wire, ServedFile file, int64_t offset, int64_t size) except -1
cdef int answer_with_file(Wire wire, int status, object fields, ServedFile file) except -1
cdef int answer_with_parts(Wire wire, int status, object fields, FileParts parts) except -1
