# cython: language_level=3, freethreading_compatible=True
"""The awaitable of what is done already: what is written is in the connection's flow at once."""

from netpoll._native.seal cimport seal_types


cdef class Ready:
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


READY = Ready.__new__(Ready)

seal_types(globals())
