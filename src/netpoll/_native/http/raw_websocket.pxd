# The seam of http/raw_websocket.pyx.

from netpoll._native.http.websocket cimport Socket


cdef class WebSocket(Socket):
    cdef readonly str subprotocol
