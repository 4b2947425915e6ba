"""Runs a program under a seccomp profile, as a container's runtime does.

    confined.py PROFILE [--without SYSCALL]... -- PROGRAM [ARGUMENT]...

The profile is Docker's JSON, installed with libseccomp. --without takes system calls out: they
get the profile's default action.
"""

import argparse
import ctypes
import ctypes.util
import json
import os
import sys
from typing import Any

SCMP_ACT_ALLOW = 0x7FFF_0000
SCMP_ACT_ERRNO = 0x0005_0000
SCMP_CMP_MASKED_EQ = 7
NR_UNKNOWN = -1  # of the names that this libseccomp is too old for


class Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    ]


def libseccomp() -> ctypes.CDLL:
    """OSError where libseccomp is not installed."""
    found = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_load.argtypes = [ctypes.c_void_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    return found


def action(rule: dict[str, Any], key: str, errno_key: str) -> int:
    if rule[key] == "SCMP_ACT_ALLOW":
        return SCMP_ACT_ALLOW
    assert rule[key] == "SCMP_ACT_ERRNO", rule[key]
    return SCMP_ACT_ERRNO | int(rule[errno_key])


def confine(profile: dict[str, Any], without: set[str]) -> None:
    seccomp = libseccomp()
    default = action(profile, "defaultAction", "defaultErrnoRet")
    context = seccomp.seccomp_init(default)
    for rule in profile["syscalls"]:
        wanted = action(rule, "action", "errnoRet")
        comparisons = (Comparison * 6)()
        arguments = rule.get("args", [])
        for slot, argument in zip(comparisons, arguments, strict=False):
            assert argument["op"] == "SCMP_CMP_MASKED_EQ", argument
            slot.argument, slot.operator = argument["index"], SCMP_CMP_MASKED_EQ
            slot.mask, slot.value = argument["value"], argument.get("valueTwo", 0)
        for name in set(rule["names"]) - without:
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            if number == NR_UNKNOWN:
                continue
            done = seccomp.seccomp_rule_add_array(
                context, wanted, number, len(arguments), comparisons
            )
            assert done == 0, (name, os.strerror(-done))
    done = seccomp.seccomp_load(context)
    assert done == 0, os.strerror(-done)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("profile")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    with open(options.profile) as file:
        profile = json.load(file)
    confine(profile, set(options.without))
    os.execvp(options.program[0], options.program)


if __name__ == "__main__":
    sys.exit(main())
