"""Packages that are imported when something needs them, with a sentence on what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["opentelemetry", "prometheus_client"]


def prometheus_client(name: str = "prometheus_client") -> Any:
    return needed(name, "metrics for Prometheus need the package prometheus_client", "prometheus")


def opentelemetry(name: str) -> Any:
    return needed(f"opentelemetry.{name}", "this needs the packages of OpenTelemetry", "otel")


def needed(module: str, sentence: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise RuntimeError(f"{sentence}: pip install 'netpoll[{extra}]'") from error
