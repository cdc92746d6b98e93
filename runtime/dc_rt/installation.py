"""How this copy was installed, and the commands that add to it."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """The command that installs an extra of this copy, `rtx` for example, run in its checkout."""
    return f"pip install '.[{extra}]'"
