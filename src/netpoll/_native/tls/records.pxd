# What is encrypted next: pieces that are written one after the other leave as one record.

from libc.stdint cimport uint32_t, uintptr_t
from libc.string cimport memcpy

from netpoll._native.c cimport NP_OWNER_FILE, NP_OWNER_MASK, np_chunk, np_iov
from netpoll._native.limits cimport TLS_RECORD_BYTES


cdef inline bint is_file(np_chunk *chunk) noexcept:
    return (<uintptr_t>chunk.owner & NP_OWNER_MASK) == NP_OWNER_FILE


cdef inline Py_ssize_t next_record(np_iov *plain, Py_ssize_t most, char *record,
                                   const char **data) noexcept:
    """Where the next bytes are, and how many, at most `most`: in the first piece, or copied to
    `record` (TLS_RECORD_BYTES) together with what follows. The first piece is no file."""
    cdef np_chunk *chunk = &plain.chunks[plain.head]
    cdef size_t skip_bytes = plain.skip_bytes
    cdef Py_ssize_t there = chunk.len_bytes - skip_bytes, size = 0
    cdef uint32_t i = 0
    if plain.count == 1 or there >= min(most, <Py_ssize_t>TLS_RECORD_BYTES):
        data[0] = <const char*>(chunk.base + skip_bytes)
        return min(there, most)
    most = min(most, <Py_ssize_t>TLS_RECORD_BYTES)
    while size < most and i < plain.count:
        chunk = &plain.chunks[(plain.head + i) & (plain.cap - 1)]
        if is_file(chunk):
            break
        there = min(<Py_ssize_t>(chunk.len_bytes - skip_bytes), most - size)
        memcpy(record + size, chunk.base + skip_bytes, there)
        size += there
        skip_bytes = 0
        i += 1
    data[0] = record
    return size
