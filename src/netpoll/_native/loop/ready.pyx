# cython: language_level=3, freethreading_compatible=True
"""The awaitable of what is done already. One object serves all awaits of one kind."""

from netpoll._native.c cimport PYGEN_RETURN, Py_INCREF, PyObject, PyTypeObject
from netpoll._native.seal cimport seal_types


cdef class Ready:
    @property
    def __qualname__(self):
        return self.called

    @property
    def __name__(self):
        return self.called.rpartition(".")[2]

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, typ, val=None, tb=None):
        raise typ if val is None else val

    def close(self):
        pass


cdef Ready ready_as(str called):
    cdef Ready ready = Ready.__new__(Ready)
    ready.called = called
    return ready


# The slot that the interpreter's SEND uses, without an exception on the way.
cdef int ready_am_send(PyObject *self, PyObject *value, PyObject **out) noexcept:
    Py_INCREF(<PyObject*>None)
    out[0] = <PyObject*>None
    return PYGEN_RETURN


(<PyTypeObject*>Ready).tp_as_async.am_send = <void*>ready_am_send
READY = ready_as("ready")

seal_types(globals())
