"""Build script: the C core once as a static library, the Cython extensions linked against it."""

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE_SOURCES = [
    "csrc/np_arena.c",
    "csrc/np_epoll.c",
    "csrc/np_inbox.c",
    "csrc/np_iov.c",
    "csrc/np_op.c",
    "csrc/np_timer.c",
    "csrc/np_uring.c",
]
CFLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-fno-strict-aliasing"]


def extension(name: str) -> Extension:
    return Extension(
        f"netpoll.{name}",
        [f"src/netpoll/{name.replace('.', '/')}.pyx"],
        include_dirs=["csrc"],
        libraries=["npcore"],
        extra_compile_args=CFLAGS + ["-Wno-unused-parameter", "-Wno-unused-function"],
        extra_objects=[],
        extra_link_args=["-l:liburing.a"],
    )


setup(
    libraries=[
        ("npcore", {"sources": CORE_SOURCES, "include_dirs": ["csrc"], "cflags": CFLAGS + ["-fPIC"]})
    ],
    ext_modules=cythonize(
        [extension(name) for name in ("_core", "_transport", "_streams", "_sock")],
        compiler_directives={"language_level": 3, "freethreading_compatible": True},
    ),
)
