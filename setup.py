"""Build script: the C core once, as a static library, and the Cython extensions linked against it.

What is built follows from what is there: every `src/netpoll/**/*.pyx` is an extension, every
`csrc/**/np_*.c` that is not named in `EXTRA_SOURCES` belongs to the core. Nothing has to be listed
twice, and a file that is added is built.

Environment:
    NETPOLL_DEBUG=1                     -O1, NP_DEBUG, Cython's bounds checks and assertions.
    NETPOLL_SYMBOLS=1                   a release build with debug information, for gdb and perf
                                        annotate, and the names of functions: six times as large.
    NETPOLL_SANITIZE=address,undefined  the same with -fsanitize=...; run Python with libasan
                                        preloaded (`./test --sanitize` does).
    NETPOLL_JOBS=N                      compilers at once (default: one per CPU).
    CC, AR, CFLAGS, LDFLAGS             as everywhere.

Each flavour (release, symbols, debug, sanitized) has its own directory below `build/`, so that
changing between them neither mixes objects nor starts from nothing.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("src/netpoll")
CYTHON_MIN = (3, 1)

# C files that only one extension needs; everything else in csrc is the core.
EXTRA_SOURCES = {
    "netpoll._native.probe": ["csrc/probe/np_probe.c"],
    "netpoll._native.testing.faults": [
        "csrc/testing/np_fault_plan.c",
        "csrc/testing/np_faulty.c",
    ],
    "netpoll.bench._native": [
        "csrc/bench/np_loadgen.c",
        "csrc/bench/np_loadhttp.c",
        "csrc/bench/np_loadtls.c",
        "csrc/bench/np_floor.c",
        "csrc/bench/np_floor_http.c",
        "csrc/bench/np_floor_udp.c",
        "csrc/bench/np_zcbench.c",
    ],
}

# What runs when something is set up, looked at or refused, and what calls a library for most of its
# time: compiled for size.
RARELY_RUN = frozenset(
    f"netpoll._native.{name}"
    for name in (
        *("liburing", "numbers", "probe", "seal", "testing.faults", "loop.counters"),
        *("server.addresses", "server.door", "server.ends", "server.listener", "server.names"),
        *("server.networks", "http.compression", "http.own_pages", "http.parser"),
        *("http.request_limits", "http.trailers"),
    )
)

# Compiles and links only where liburing is 2.3 or newer and its static library is there.
LIBURING_TEST = """
#include <liburing.h>
int main(void)
{
    struct io_uring_buf_reg reg = {0};
    return io_uring_register_buf_ring(0, &reg, IORING_SETUP_DEFER_TASKRUN);
}
"""

SANITIZE = os.environ.get("NETPOLL_SANITIZE", "").strip()
DEBUG = bool(SANITIZE) or os.environ.get("NETPOLL_DEBUG", "0") not in ("", "0")
SYMBOLS = DEBUG or os.environ.get("NETPOLL_SYMBOLS", "0") not in ("", "0")
FLAVOUR = "sanitize" if SANITIZE else "debug" if DEBUG else "symbols" if SYMBOLS else "release"
BUILD_BASE = f"build/{FLAVOUR}"
# Apart for each interpreter: "cpython-313t-x86_64-linux-gnu" is not "cpython-313-...".
BUILD_LIB = f"{BUILD_BASE}/lib.{sysconfig.get_config_var('SOABI')}"
BUILD_TEMP = f"{BUILD_BASE}/temp.{sysconfig.get_config_var('SOABI')}"
EXPORTS = f"{BUILD_BASE}/exports.map"


def compile_flags(extension: str) -> list[str]:
    # No -march=native and no LTO: a wheel runs on every machine of its architecture, and a
    # link takes a second. Names stay inside each extension, which carries its own copy of the core.
    flags = ["-std=gnu11", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"]
    # The last one counts: CPython's own flags may ask for debug information.
    flags += ["-Wall", "-Wextra", "-Wtype-limits", "-g" if SYMBOLS else "-g0"]
    if not DEBUG:
        return [*flags, "-Os" if extension in RARELY_RUN else "-O2", "-DNDEBUG"]
    flags += ["-O1", "-UNDEBUG", "-DNP_DEBUG=1", "-fno-omit-frame-pointer"]
    if SANITIZE:
        flags += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    return flags


def link_flags() -> list[str]:
    # liburing is linked statically, so that a wheel needs nothing on the machine it runs on.
    # Its names stay inside, too: another liburing in the process must not meet this one. A version
    # script says so to every linker, --exclude-libs only to some.
    flags = ["-l:liburing.a", f"-Wl,--version-script={EXPORTS}"]
    if not SYMBOLS:
        # docs/decisions/small-extensions.md: what it saves, and what else was tried.
        flags.append("-Wl,--strip-all")
    return flags + ([f"-fsanitize={SANITIZE}"] if SANITIZE else [])


def shared_pages() -> list[str]:
    """What makes read-only data and code share pages, where the linker has to be told.

    LLVM's does it by itself, and Zig's driver of it refuses the flag.
    """
    flag = "-Wl,-z,noseparate-code"
    return [flag] if not SYMBOLS and compiles("int main(void) { return 0; }\n", flag) else []


# What cffi's C sees before the declarations of csrc/io/uring/liburing.cdef.
CFFI_SOURCE = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/openat2.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "io/uring/np_prep.h"
"""

# Cython's own C does not keep these two; the core does.
CYTHON_C_FLAGS = ["-Wno-unused-parameter", "-Wno-unused-function"]
if not DEBUG:
    CYTHON_C_FLAGS.append("-DCYTHON_WITHOUT_ASSERTIONS=1")

DIRECTIVES = {
    "language_level": 3,
    "freethreading_compatible": True,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "embedsignature": True,
    "embedsignature.format": "clinic",  # what inspect.signature() reads
    # Methods of extension types are CPython's own kind, which look at the type of `self`: Cython's
    # functions take any object for it, and Type.method(None) is a crash.
    "binding": False,
    # No function takes None for an object of ours unless it says so ("or None"), and an attribute
    # that is None is an AttributeError, not a crash.
    "allow_none_for_extension_args": False,
    "nonecheck": True,
    # Cython's own pickling would make objects without their makers.
    "auto_pickle": False,
}


def fail(sentence: str) -> None:
    """Ends the build with one sentence instead of a traceback."""
    raise SystemExit(f"netpoll: {sentence}")


def compiler_command() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def check_compiler() -> None:
    command = compiler_command()
    if shutil.which(command[0]) is None:
        fail(
            f"no C compiler ('{command[0]}') was found: install the package build-essential "
            "('sudo apt install build-essential')."
        )


def check_python_headers() -> None:
    paths = [sysconfig.get_config_var("INCLUDEPY"), sysconfig.get_path("platinclude")]
    if not any(Path(path, "Python.h").is_file() for path in paths if path):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        fail(
            f"the header Python.h of CPython {version} was not found: install the package "
            f"python3-dev, or python{version}-dev where {version} is not the system's own Python "
            "('sudo apt install python3-dev')."
        )


def compiles(source: str, *flags: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "check.c")
        file.write_text(source)
        command = [*compiler_command(), *shlex.split(os.environ.get("CFLAGS", "")), str(file)]
        command += ["-o", str(file.with_suffix(".out")), *flags]
        return subprocess.run(command, capture_output=True).returncode == 0


def check_liburing() -> None:
    linker = shlex.split(os.environ.get("LDFLAGS", ""))
    if compiles(LIBURING_TEST, *linker, "-l:liburing.a"):
        return
    if not compiles("#include <stdio.h>\nint main(void) { return 0; }\n"):
        fail(
            "the C compiler cannot build the smallest program: install the package "
            "build-essential ('sudo apt install build-essential')."
        )
    advice = "install the package liburing-dev ('sudo apt install liburing-dev')."
    if not compiles("#include <liburing.h>\n", "-c"):
        fail(f"the header liburing.h was not found: {advice}")
    if not compiles(LIBURING_TEST, "-c"):
        fail(
            "this liburing is older than 2.3: install a newer liburing-dev "
            "(Debian 12 and Ubuntu 24.04 have one)."
        )
    fail(f"the static library liburing.a was not found: {advice}")


def check_cython() -> str:
    """Cython's version; it names the directory of the generated C."""
    try:
        import Cython
    except ImportError:
        fail("Cython is missing: install it with 'pip install \"Cython>=3.1\"'.")
    version = Cython.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < CYTHON_MIN:
        fail(f"Cython {version} is too old: 'pip install \"Cython>=3.1\"'.")
    return version


def headers() -> list[str]:
    return sorted(str(path) for path in Path("csrc").rglob("*.h"))


def core_sources() -> list[str]:
    extra = {name for names in EXTRA_SOURCES.values() for name in names}
    return sorted(str(p) for p in Path("csrc").rglob("np_*.c") if str(p) not in extra)


def cffi_extension() -> list[Extension]:
    """netpoll.uring's, where cffi is installed (it refuses free-threaded Pythons before 3.14)."""
    try:
        from cffi import FFI

        ffi = FFI()
        ffi.cdef(Path("csrc/io/uring/liburing.cdef").read_text())
        ffi.set_source("netpoll._native.liburing", CFFI_SOURCE)
        target = Path(BUILD_BASE, "cffi", "_liburing.c")
        target.parent.mkdir(parents=True, exist_ok=True)
        ffi.emit_c_code(str(target))
    except Exception as error:  # whatever cffi does not like: netpoll can be had without it
        print(f"netpoll: built without netpoll.uring, which needs cffi ({error})", flush=True)
        return []
    return [
        Extension(
            "netpoll._native.liburing",
            [str(target)],
            include_dirs=["csrc"],
            depends=["setup.py", "csrc/io/uring/liburing.cdef", "csrc/io/uring/np_prep.h"],
            extra_compile_args=compile_flags("netpoll._native.liburing") + CYTHON_C_FLAGS,
            extra_link_args=link_flags(),
        )
    ]


def extensions() -> list[Extension]:
    result = cffi_extension()
    for pyx in sorted(PACKAGE.rglob("*.pyx")):
        name = ".".join(pyx.with_suffix("").parts[1:])
        extra = EXTRA_SOURCES.get(name, [])
        result.append(
            Extension(
                name,
                [str(pyx), *extra],
                include_dirs=["csrc"],
                depends=["setup.py", *headers(), *core_sources()],
                extra_compile_args=compile_flags(name) + CYTHON_C_FLAGS,
                extra_link_args=link_flags(),
            )
        )
    return result


def run(command: list[str]) -> None:
    print(shlex.join(command), flush=True)
    if subprocess.run(command).returncode != 0:
        fail(f"this command failed: {shlex.join(command)}")


def is_stale(target: Path, sources: list[str]) -> bool:
    if not target.exists():
        return True
    made = target.stat().st_mtime
    return any(os.stat(source).st_mtime > made for source in sources)


class Build(build):
    """Keeps each flavour's results below its own directory."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base, self.build_platlib, self.build_temp = BUILD_BASE, BUILD_LIB, BUILD_TEMP


class BuildExt(build_ext):
    """Checks what is needed, builds the core, then the extensions; all of it in parallel."""

    def finalize_options(self) -> None:
        if self.editable_mode:
            # An editable install brings temporary directories and would start from nothing.
            self.build_lib, self.build_temp = BUILD_LIB, BUILD_TEMP
        super().finalize_options()
        jobs = int(os.environ.get("NETPOLL_JOBS", "0")) or os.cpu_count() or 1
        self.parallel = self.parallel or jobs

    def run(self) -> None:
        check_compiler()
        check_python_headers()
        check_liburing()
        shared = shared_pages()
        for extension in self.extensions:
            extension.extra_link_args += shared
        self.translate(check_cython())
        Path(EXPORTS).write_text("{ global: PyInit_*; local: *; };\n")
        super().run()

    def translate(self, cython_version: str) -> None:
        """Cython to C, below build/: what a checkout shows is only what somebody wrote."""
        from Cython.Build import cythonize

        directory = Path(BUILD_BASE, f"cython-{cython_version}")
        translated = [e for e in self.extensions if e.sources[0].endswith(".pyx")]
        inputs = {e.name: e.sources[0] for e in translated}
        made = cythonize(
            [Extension(name, [pyx]) for name, pyx in inputs.items()],
            build_dir=str(directory),
            nthreads=self.parallel,
            compiler_directives=DIRECTIVES,
            # Cython compares dates of its own sources only; the directives stand in this file.
            force=any(is_stale(c, ["setup.py"]) for c in directory.rglob("*.c")),
        )
        outputs = {extension.name: extension.sources[0] for extension in made}
        for extension in translated:
            others = [source for source in extension.sources if not source.endswith(".pyx")]
            extension.sources = [outputs[extension.name], *others]

    def build_extensions(self) -> None:
        archive = str(self.build_core())
        for extension in self.extensions:
            extension.extra_objects = [archive]
        super().build_extensions()

    def build_core(self) -> Path:
        """libnpcore.a; only what is older than its source is compiled again."""
        directory = Path(self.build_temp, "npcore")
        directory.mkdir(parents=True, exist_ok=True)
        archive = directory / "libnpcore.a"
        common = ["setup.py", *headers()]
        jobs = {directory / (Path(c).stem + ".o"): c for c in core_sources()}
        stale = {o: c for o, c in jobs.items() if is_stale(o, [c, *common])}
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(self.compile_core_file, stale.values(), stale.keys()))
        if stale or is_stale(archive, [str(o) for o in jobs]):
            # From nothing: an archive would keep the object of a source that is gone.
            archive.unlink(missing_ok=True)
            archiver = shlex.split(os.environ.get("AR") or "ar")
            run([*archiver, "rcs", str(archive), *map(str, jobs)])
        return archive

    def compile_core_file(self, source: str, target: Path) -> None:
        flags = [*shlex.split(os.environ.get("CFLAGS", "")), *compile_flags(""), "-Icsrc"]
        run([*compiler_command(), *flags, "-c", source, "-o", str(target)])


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(ext_modules=extensions(), cmdclass={"build": Build, "build_ext": BuildExt})
