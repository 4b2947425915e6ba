"""What a result is made of, as JSON has it; docs/benchmarks.md describes the fields."""

from typing import Any

__all__ = ["Document", "Facts", "Row"]

Document = dict[str, Any]  # of a whole run
Row = dict[str, Any]  # of what was measured of one arm
Facts = dict[str, Any]  # of an arm, of the environment, of the settings
