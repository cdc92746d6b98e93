"""Whom long steps tell how far they are: a function of a line of text."""

from __future__ import annotations

import sys
from collections.abc import Callable

Report = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Report to whoever looks on, where the caller has no better place."""
    print(message, file=sys.stderr)
