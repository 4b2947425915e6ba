# The seam of http/request_task.pyx.

from netpoll._native.http.wire cimport Exchange
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.session cimport Session


cdef class RequestTask(Session):
    cdef Exchange exchange
    cdef bint is_known      # asyncio.all_tasks() has it, and the worker


cdef bint is_of_the_end(object error) except -1
cdef RequestTask make_task(Exchange exchange, Connection face, object coro)
