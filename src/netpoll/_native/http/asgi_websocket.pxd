# The seam of http/asgi_websocket.pyx.

from netpoll._native.http.websocket cimport Socket


cdef class AsgiSocket(Socket):
    cdef bint was_told          # the application has received websocket.connect
    cdef bint has_closed        # it has sent websocket.close
    cdef object denial          # (status, headers) of websocket.http.response.start, or None

    cdef object say(self, dict message)
    cdef object answer(self, str kind, dict message)
    cdef object close(self, dict message)
    cdef object send_denial(self, dict message)
    cdef object end_denial(self)
    cdef object next_message(self)
