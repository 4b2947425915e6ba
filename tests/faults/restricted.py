"""Runs Python code in a process that was refused something: what containers do to us.

    restricted.py [--refuse SYSCALL=ERRNO]... [--kill SYSCALL]... [--memlock-kib N] CODE

--refuse      a seccomp filter answers the system call with that error
--kill        a seccomp filter ends the process that makes the system call
--memlock-kib RLIMIT_MEMLOCK, and no CAP_IPC_LOCK that would lift it
"""

import argparse
import ctypes
import errno
import os
import platform
import resource
import struct

# Numbers from 424 on are the same on all machines; the others are those of x86_64 and aarch64.
SYSCALLS = {
    "clone3": 435,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "pidfd_open": 434,
    "close_range": 436,
    "epoll_pwait2": 441,
}
OLDER_SYSCALLS = {
    "x86_64": {
        "accept4": 288,
        "clone": 56,
        "epoll_create1": 291,
        "eventfd2": 290,
        "getrandom": 318,
        "madvise": 28,
        "preadv2": 327,
        "recvmmsg": 299,
        "sched_getaffinity": 204,
        "sendfile": 40,
        "sendmmsg": 307,
        "waitid": 247,
    },
    "aarch64": {
        "accept4": 242,
        "clone": 220,
        "epoll_create1": 20,
        "eventfd2": 19,
        "getrandom": 278,
        "madvise": 233,
        "preadv2": 286,
        "recvmmsg": 243,
        "sched_getaffinity": 123,
        "sendfile": 71,
        "sendmmsg": 269,
        "waitid": 95,
    },
}
SYSCALLS |= OLDER_SYSCALLS.get(platform.machine(), {})
# Calls that are told apart by an argument: the call, which argument, its value. waitid as such is
# old, waiting for a pidfd came with Linux 5.4. Each opcode of io_uring_register does another thing.
P_PIDFD = 3
REGISTER_OPCODES = {
    "buffers": 0, "unregister_buffers": 1, "files": 2, "unregister_files": 3, "eventfd": 4,
    "unregister_eventfd": 5, "files_update": 6, "eventfd_async": 7, "probe": 8, "personality": 9,
    "unregister_personality": 10, "restrictions": 11, "enable_rings": 12, "files2": 13,
    "files_update2": 14, "buffers2": 15, "buffers_update": 16, "iowq_aff": 17,
    "unregister_iowq_aff": 18, "iowq_max_workers": 19, "ring_fds": 20, "unregister_ring_fds": 21,
    "pbuf_ring": 22, "unregister_pbuf_ring": 23, "sync_cancel": 24, "file_alloc_range": 25,
    "pbuf_status": 26, "napi": 27, "unregister_napi": 28, "clock": 29, "clone_buffers": 30,
    "send_msg_ring": 31, "zcrx_ifq": 32, "resize_rings": 33, "mem_region": 34, "query": 35,
    "zcrx_ctrl": 36, "bpf_filter": 37,
}  # fmt: skip
BY_ARGUMENT = {"waitid_pidfd": ("waitid", 0, P_PIDFD)} | {
    f"io_uring_register_{name}": ("io_uring_register", 1, opcode)
    for name, opcode in REGISTER_OPCODES.items()
}
ARGUMENTS_OFFSET = 16  # in struct seccomp_data; 8 bytes each, little-endian: the lower half first

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x0005_0000, 0x7FFF_0000
SECCOMP_RET_KILL_PROCESS = 0x8000_0000
BPF_LOAD_WORD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
CAP_IPC_LOCK = 14
CAPABILITY_VERSION_3 = 0x2008_0522

libc = ctypes.CDLL(None, use_errno=True)


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def refuse(syscalls: dict[str, int]) -> None:
    """A filter that answers each of these with its errno, or ends the process with a 0."""

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = instruction(BPF_LOAD_WORD, 0)  # the system call's number
    for what, code in syscalls.items():
        name = what
        answer = SECCOMP_RET_ERRNO | code if code else SECCOMP_RET_KILL_PROCESS
        refusal = instruction(BPF_RETURN, answer)
        if name in BY_ARGUMENT:
            name, index, value = BY_ARGUMENT[name]
            refusal = instruction(BPF_LOAD_WORD, ARGUMENTS_OFFSET + 8 * index) + (
                instruction(BPF_JUMP_IF_EQUAL, value, 0, 1) + refusal
            )
            refusal += instruction(BPF_LOAD_WORD, 0)
        program += instruction(BPF_JUMP_IF_EQUAL, SYSCALLS[name], 0, len(refusal) // 8)
        program += refusal
    program += instruction(BPF_RETURN, SECCOMP_RET_ALLOW)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    filter_program = FilterProgram(len(program) // 8, program)
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_program), 0, 0))


def limit_memlock(kib: int) -> None:
    """Root stays root, so that it still reads its files, but is charged like everybody."""
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)  # two words each: effective, permitted, inheritable
    check(libc.capget(header, data))
    words = list(struct.unpack("6I", data.raw))
    for index in range(3):
        words[index] &= ~(1 << CAP_IPC_LOCK)
    check(libc.capset(header, struct.pack("6I", *words)))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (kib * 1024, kib * 1024))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--refuse", action="append", default=[])
    parser.add_argument("--kill", action="append", default=[])
    parser.add_argument("--memlock-kib", type=int)
    parser.add_argument("code")
    options = parser.parse_args()
    if options.memlock_kib is not None:
        limit_memlock(options.memlock_kib)
    pairs = [pair.split("=") for pair in options.refuse]
    refused = {name: getattr(errno, code) for name, code in pairs} | dict.fromkeys(options.kill, 0)
    if refused:
        refuse(refused)
    exec(compile(options.code, "restricted", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
