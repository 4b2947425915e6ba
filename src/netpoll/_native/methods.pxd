# Methods that take their arguments as PEP 590 gives them, from the caller's stack: added to a type
# of Cython's by hand, because it makes a tuple for *args.

from netpoll._native.c cimport (
    METH_FASTCALL, METH_KEYWORDS, PyDescr_NewMethod, PyMethodDef, PyTypeObject, PyType_Modified)


cdef inline int add_method(type owner, PyMethodDef *method, const char *name, void *function,
                           const char *doc) except -1:
    """method: static storage, filled in here. function: (self, args, count, kwnames)."""
    cdef PyTypeObject *cls = <PyTypeObject*>owner
    method.ml_name = name
    method.ml_meth = function
    method.ml_flags = METH_FASTCALL | METH_KEYWORDS
    method.ml_doc = doc
    (<dict>cls.tp_dict)[name.decode()] = PyDescr_NewMethod(cls, method)
    PyType_Modified(cls)
    return 0
