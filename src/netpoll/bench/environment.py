"""What the figures depend on: kernel, processor, versions, settings."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import sysconfig
from pathlib import Path

from netpoll.bench.cores import Pinning
from netpoll.bench.records import Facts
from netpoll.bench.tcp import congestion_control, system_congestion_control

__all__ = ["describe", "sentences"]


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def netpoll_facts() -> Facts:
    """`netpoll.probe()`, or why there is none: the harness also measures the others without it."""
    try:
        import netpoll

        return netpoll.probe().to_dict()
    except Exception as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}


def describe(pinning: Pinning) -> Facts:
    """Everything about this machine and this interpreter that a reader has to know."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "hypervisor": "hypervisor" in (Path("/proc/cpuinfo").read_text()),
        "spectre_v2": _first_line("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
        "load_average": os.getloadavg(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "python_compiler": platform.python_compiler(),
        "python_optimized": "--enable-optimizations" in options,
        "gil": gil,
        "congestion_control": congestion_control(),
        "congestion_control_of_the_system": system_congestion_control(),
        "pinning": dataclasses.asdict(pinning) | {"sentence": pinning.sentence()},
        "netpoll_probe": netpoll_facts(),
    }


def sentences(environment: Facts) -> list[str]:
    """The few lines that go above a table."""
    e = environment
    virtual = " (virtual machine)" if e["hypervisor"] else ""
    gil = "" if e["gil"] else ", free-threaded"
    tcp = e.get("congestion_control")
    usual = e.get("congestion_control_of_the_system")
    return [
        f"Linux {e['kernel']} · {e['cpu_model']}{virtual} · {e['cpu_count']} CPUs",
        f"{e['python_implementation']} {e['python']}{gil} · {e['libc']}",
        e["pinning"]["sentence"][:1].upper() + e["pinning"]["sentence"][1:],
        *(
            [f"TCP with {tcp} on both sides, not {usual}, the system's choice."]
            if tcp != usual
            else []
        ),
    ]
