# cython: language_level=3, freethreading_compatible=True
"""Files that answers are made of: small ones out of memory, large ones by sendfile(2).

What was read of a file is sent again as long as its name still leads to it and it has not changed:
one stat(2) for an answer, where opening, reading and closing are a dozen system calls.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport ENOSYS
from libc.stdint cimport int64_t
from libc.time cimport time
from posix.fcntl cimport AT_FDCWD

from netpoll._native.c cimport (
    NP_FILE_ANYWHERE, NP_FILE_BELOW, np_file_facts, np_file_look, np_file_open, np_file_read,
    np_sock_close)
from netpoll._native.failing cimport os_error
from netpoll._native.http.wire cimport Wire
from netpoll._native.limits cimport (
    HTTP_FILES_MAX_BYTES, HTTP_FILE_MAX_BYTES, HTTP_FILE_YOUNG_NS)
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport FileSpan

import errno
import io
import os


cdef class ServedFile:
    """A file as it was when it was opened."""

    @property
    def changed_ns(self):
        return self.facts.changed_ns

    @property
    def etag(self):
        """A strong validator (RFC 9110 8.8.3): another one for each file and each change of it."""
        if self.tag is None:
            self.tag = f'"{self.facts.inode:x}-{self.facts.changed_ns:x}-{self.size:x}"'
        return self.tag

    def fileno(self):
        """The open file's descriptor. OSError for one that is in memory."""
        if self.span is None:
            raise OSError(errno.EBADF, "the content of this file is in memory")
        return self.span.fd

    def __repr__(self):
        return f"<netpoll served file {os.fsdecode(self.name)!r}, {self.size} bytes>"


cdef class FileParts:
    """The body of an answer: bytes, and parts (offset, size) of a file, in this order."""

    def __cinit__(self, ServedFile file not None, list pieces not None):
        cdef int64_t offset, size
        self.file = file
        self.pieces = []
        for piece in pieces:
            if type(piece) is bytes:
                self.size += PyBytes_GET_SIZE(piece)
            else:
                offset, size = piece
                if offset < 0 or size < 0 or size > file.size or offset > file.size - size:
                    raise ValueError(f"not a part of a file of {file.size} bytes: {piece!r}")
                piece = (offset, size)
                self.size += size
            self.pieces.append(piece)


cdef class FileCache:
    """Files by their path, for one thread. by_kernel: with openat2, where there is one."""

    def __cinit__(self, bint by_kernel=True):
        self.files = {}
        self.by_kernel = by_kernel

    def find(self, path, below=None):
        """The file with this path; its content is that of now, or has not changed since.

        below: a directory that the path must not lead out of, not by links either; the path is its
        name, a slash and the rest then. Raises what open() raises; PermissionError when it leads
        out; IsADirectoryError.
        """
        file = self.known(path)
        return file if file is not None else self.load(path, below)

    cdef ServedFile known(self, object path):
        cdef ServedFile file = <ServedFile>(<dict>self.files).get(path)
        cdef const char *name
        cdef np_file_facts now
        cdef int result
        if file is None:
            return None
        name = PyBytes_AS_STRING(file.name)
        with nogil:
            result = np_file_look(name, &now)
        if result == 0 and is_same(&now, &file.facts):
            if self.files.pop(path, None) is file:
                self.files[path] = file
            return file
        self.forget(path)
        return None

    cdef ServedFile load(self, object path, object below):
        cdef ServedFile file = ServedFile.__new__(ServedFile)
        cdef int fd
        file.name = os.fsencode(path)
        if b"\0" in file.name:
            raise ValueError("embedded null byte")
        if below is None:
            fd = open_anywhere(file)
        else:
            fd = open_below(file, below) if self.by_kernel else -1
            if fd < 0:
                fd = open_and_look(file, below)
        file.span = FileSpan.__new__(FileSpan)
        file.span.fd = fd
        if file.facts.is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not file.facts.is_regular:
            raise PermissionError(errno.EACCES, "not a regular file", path)
        file.size = file.facts.size_bytes
        if file.size <= HTTP_FILE_MAX_BYTES:
            read_whole(file)
            self.keep(path, file)
        return file

    cdef int keep(self, object path, ServedFile file) except -1:
        cdef int64_t now_ns = <int64_t>time(NULL) * 1000000000
        if file.size != file.facts.size_bytes \
                or now_ns - file.facts.changed_ns < HTTP_FILE_YOUNG_NS \
                or now_ns - file.facts.inode_ns < HTTP_FILE_YOUNG_NS:
            return 0
        self.forget(path)
        self.files[path] = file
        self.kept_bytes += file.size
        while self.kept_bytes > HTTP_FILES_MAX_BYTES:
            self.forget(next(iter(self.files)))
        return 0

    cdef int forget(self, object path) except -1:
        cdef ServedFile file = <ServedFile>(<dict>self.files).pop(path, None)
        if file is not None:
            self.kept_bytes -= file.size
        return 0


cdef inline bint is_same(const np_file_facts *one, const np_file_facts *other) noexcept:
    return one.inode == other.inode and one.device == other.device \
        and one.size_bytes == other.size_bytes and one.changed_ns == other.changed_ns \
        and one.inode_ns == other.inode_ns


# Each returns the descriptor, and fills file.facts.

cdef int open_anywhere(ServedFile file) except -1:
    cdef const char *name = PyBytes_AS_STRING(file.name)
    cdef int fd
    with nogil:
        fd = np_file_open(AT_FDCWD, name, NP_FILE_ANYWHERE, &file.facts)
    return checked(fd, file)


cdef int open_below(ServedFile file, object below) except? -1:
    """-ENOSYS: the kernel cannot."""
    cdef const char *rest
    cdef int fd, directory
    rest_bytes = file.name[len(os.fsencode(below)) + 1:]
    rest = PyBytes_AS_STRING(rest_bytes)
    directory = os.open(below, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with nogil:
        fd = np_file_open(directory, rest, NP_FILE_BELOW, &file.facts)
        np_sock_close(directory)
    return fd if fd == -ENOSYS else checked(fd, file)


cdef int open_and_look(ServedFile file, object below) except -1:
    """Opens the file, and asks where it is then: nothing can be changed in between."""
    cdef int fd = open_anywhere(file)
    try:
        where = os.readlink(f"/proc/self/fd/{fd}")
        root = os.path.realpath(os.fsdecode(below))
        if not where.startswith(root.rstrip("/") + "/"):
            raise PermissionError(errno.EXDEV, "the path leads out of the directory")
    except BaseException:
        np_sock_close(fd)
        raise
    return fd


cdef int checked(int fd, ServedFile file) except -1:
    if fd == -errno.EXDEV:
        raise PermissionError(errno.EXDEV, "the path leads out of the directory")
    if fd < 0:
        raise os_error(fd, os.fsdecode(file.name))
    return fd


cdef int read_whole(ServedFile file) except -1:
    """Into memory, and closes it. One that becomes shorter meanwhile is what was read."""
    cdef Py_ssize_t got = 0
    cdef Py_ssize_t size = file.size
    cdef int fd = file.span.fd
    data = PyBytes_FromStringAndSize(NULL, size)
    cdef char *memory = PyBytes_AS_STRING(data)
    with nogil:
        got = np_file_read(fd, memory, size, 0)
    if got < 0:
        raise os_error(got, os.fsdecode(file.name))
    file.data = data if got == size else data[:got]
    file.size = got
    file.span = None
    return 0


# ---- answers ------------------------------------------------------------------------------------

cdef bint is_plain_file(object filelike) except -1:
    """read() gives the bytes of the file behind its descriptor: not those of a GzipFile, say."""
    if isinstance(filelike, (io.BufferedReader, io.BufferedRandom)):
        filelike = filelike.raw
    return isinstance(filelike, io.FileIO) or not isinstance(filelike, io.IOBase)


cdef FileSpan span_of(int fd):
    """The file behind a descriptor, which may be closed then."""
    cdef FileSpan span = FileSpan.__new__(FileSpan)
    span.fd = os.dup(fd)
    return span


cdef int write_part(Wire wire, ServedFile file, int64_t offset, int64_t size) except -1:
    if file.data is None:
        return wire.write_span(file.span, offset, size)
    return wire.write_data(file.data[offset:offset + size])


cdef int answer_with_file(Wire wire, int status, object fields, ServedFile file) except -1:
    if file.data is not None:
        return wire.write_whole(status, fields, file.data)
    wire.write_head(status, fields, file.size)
    wire.write_span(file.span, 0, file.size)
    return wire.end_answer()


cdef int answer_with_parts(Wire wire, int status, object fields, FileParts parts) except -1:
    cdef int64_t offset, size
    wire.write_head(status, fields, parts.size)
    for piece in parts.pieces:
        if type(piece) is bytes:
            wire.write_data(piece)
        else:
            offset, size = <tuple>piece
            write_part(wire, parts.file, offset, size)
    return wire.end_answer()


seal_types(globals(), (FileCache, FileParts))
