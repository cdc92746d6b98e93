"""What a step of the check finds: rows of its table, each with a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

PASSED, MISSED, FAILED, SKIPPED, MEASURED = "passed", "missed", "failed", "skipped", "measured"
COLOURS = {PASSED: "green", MISSED: "red", FAILED: "red", SKIPPED: "yellow", MEASURED: ""}


@dataclass(frozen=True)
class Row:
    """A line of the table: what was looked at, what was found, what should have been, and the verdict."""

    what: str
    status: str
    value: str = ""
    target: str = ""
    note: str = ""


class StepFailed(Exception):
    """A step did not come to its end; says why in a sentence."""


def judged(what: str, value: float, target: float, shown: str, note: str = "", *, least: bool = False) -> Row:
    """The row of a number that must be at most, or at least, `target`; what is not a number never is."""
    reached = value >= target if least else value <= target
    sign = ">=" if least else "<="
    return Row(what, PASSED if reached and math.isfinite(value) else MISSED, shown, f"{sign} {target:g}", note)
