# cython: language_level=3, freethreading_compatible=True
"""The environ of WSGI (PEP 3333): a request, as a dict of an application's own."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t, uint32_t

from netpoll._native.http.c cimport (
    NP_FIELDS_COUNT, NP_FIELD_OTHER, np_field_unquote, np_http_field)
from netpoll._native.http.request_head cimport text_of
from netpoll._native.http.words cimport field_names, method_name
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection

import sys


cdef str env_name(bytes field):
    """content-type -> CONTENT_TYPE, accept -> HTTP_ACCEPT."""
    name = field.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + name


# By the field's number; None: it has none.
cdef list ENV_NAMES = [None] + [sys.intern(env_name(<bytes><object>field_names[i]))
                                for i in range(1, NP_FIELDS_COUNT)]


cdef int put_addresses(dict environ, Wire wire) except -1:
    """The server's are never empty (PEP 3333), also where a Unix socket has neither."""
    cdef Addresses addresses = wire.service.addresses
    cdef Connection face = wire.face
    client = addresses.client(face)
    server = addresses.server(face)
    if wire.service.forwarded is not None:
        client, environ["wsgi.url_scheme"] = wire.service.forwarded.told(
            &wire.request, client, environ["wsgi.url_scheme"])
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    if server is not None and server[1] is not None:
        environ["SERVER_NAME"] = server[0]
        environ["SERVER_PORT"] = str(server[1])
    return 0


cdef int put_fields(dict environ, Wire wire) except -1:
    """A name with an underscore is dropped: it could stand for another one with a hyphen. What
    comes more than once is joined."""
    cdef np_http_field *field
    cdef uint32_t i
    for i in range(wire.request.fields_count):
        field = &wire.request.fields[i]
        if field.id == NP_FIELD_OTHER:
            name = text_of(&wire.request, field.name_at, field.name_bytes)
            if b"_" in name:
                continue
            key = env_name(name)
        else:
            key = <str>ENV_NAMES[field.id]
        value = PyUnicode_DecodeLatin1(<const char*>wire.request.base + field.value_at,
                                       field.value_bytes, NULL)
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value
    return 0


cdef str latin_path(Wire wire):
    """The path without percent signs: its bytes, each as a character (PEP 3333)."""
    cdef const uint8_t *at = wire.request.base + wire.request.path.at
    cdef Py_ssize_t size = wire.request.path.bytes
    cdef int is_ascii
    if size == 0:
        return "/"
    raw = PyBytes_FromStringAndSize(NULL, size)
    size = np_field_unquote(at, size, <uint8_t*>PyBytes_AS_STRING(raw), &is_ascii)
    return PyUnicode_DecodeLatin1(PyBytes_AS_STRING(raw), size, NULL)


cdef dict environ_template(str scheme, str root_path, object multithread, object multiprocess,
                           object file_wrapper):
    """What is the same for all requests."""
    return {
        "wsgi.version": (1, 0), "wsgi.url_scheme": scheme, "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread, "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False, "wsgi.file_wrapper": file_wrapper,
        "wsgi.input_terminated": True, "SERVER_SOFTWARE": "netpoll",
        "SERVER_PROTOCOL": "HTTP/1.1", "SCRIPT_NAME": root_path.rstrip("/"),
        "REMOTE_ADDR": "", "REMOTE_PORT": "", "SERVER_NAME": "localhost",
        "SERVER_PORT": "443" if scheme == "https" else "80",
    }


cdef dict environ_of(dict template, Wire wire):
    """For the request that the wire has read."""
    cdef dict environ = template.copy()
    path = latin_path(wire)
    mount = <str>environ["SCRIPT_NAME"]
    if mount and (path == mount or path.startswith(mount + "/")):
        path = path[len(mount):]
    if not wire.request.minor:
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"
    environ["REQUEST_METHOD"] = method_name(
        wire.request.method, wire.request.base + wire.request.method_name.at,
        wire.request.method_name.bytes)
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = PyUnicode_DecodeLatin1(
        <const char*>wire.request.base + wire.request.query.at, wire.request.query.bytes, NULL)
    environ["REQUEST_URI"] = PyUnicode_DecodeLatin1(
        <const char*>wire.request.base + wire.request.target.at, wire.request.target.bytes,
        NULL)
    put_addresses(environ, wire)
    put_fields(environ, wire)
    if wire.request_id is not None:
        environ[env_name(wire.service.ids.name)] = wire.request_id.decode("latin-1")
    return environ
