# cython: language_level=3, freethreading_compatible=True, binding=True
"""Types that only netpoll makes objects of.

What is written in C trusts that an object was made by its maker: that its loop is a loop, its fd an
fd. Type(), Type.__new__(Type), copy, pickle and a subclass that forgets super().__init__() would
all make objects without it. So each module closes its types when it is complete (seal_types): from
Python neither they nor classes that derive from them make objects. A maker still uses the slot
tp_new, and so do derived types of other modules.

Types that stay open take what they need in __cinit__, which cannot be left out nor called twice, or
check in each method that they were initialised.
"""

from netpoll._native.c cimport (
    PyObject, PyTypeObject, PyType_Modified, Py_TPFLAGS_HEAPTYPE)


@staticmethod
def refuse(cls, *_args, **_kwargs):
    """Stands in for __new__ of a type that only netpoll makes objects of."""
    raise TypeError(f"cannot create {getattr(cls, '__qualname__', cls)!r} instances: only netpoll "
                    "makes them")


def refuse_pickle(self, *_args):
    """Stands in for __reduce_ex__: a copy would be one that nobody has made."""
    raise TypeError(f"cannot pickle {type(self).__name__!r} object")


cdef int refuse_init(PyObject *self, PyObject *_args, PyObject *_kwargs) except -1:
    cls = type(<object>self)
    raise TypeError(f"cannot create {cls.__qualname__!r} instances: only netpoll makes them")


cdef int seal_types(dict names, tuple others=()) except -1:
    """Closes the extension types of a module; names: its globals().

    others: those that stay open: Python code makes objects of them, or derives from them.
    """
    cdef PyTypeObject *slots
    for cls in list(names.values()):
        if type(cls) is not type or cls.__module__ != names["__name__"]:
            continue
        slots = <PyTypeObject*>cls
        if slots.tp_flags & Py_TPFLAGS_HEAPTYPE:
            continue  # a class written in Python
        if cls in others:
            if slots.tp_init == <void*>refuse_init:  # inherited
                slots.tp_init = (<PyTypeObject*>object).tp_init
            continue
        if "__init__" not in <dict>slots.tp_dict:  # else it says where they come from
            slots.tp_init = <void*>refuse_init
        slots.tp_vectorcall = NULL  # would make one without asking tp_init
        (<dict>slots.tp_dict)["__new__"] = refuse
        (<dict>slots.tp_dict)["__reduce_ex__"] = refuse_pickle
        PyType_Modified(slots)
    return 0


seal_types(globals())
