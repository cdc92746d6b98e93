"""A command that knows what users of the original type, and where their home folder is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from dc_rt.cli.original import mistake
from dc_rt.cli.terminal import complain

_USAGE_STATUS = 2  # that of all wrong usage
_PATHS = ("path", "file", "directory")  # as click calls its kinds of paths

# Options that were taken out, and what to do in their place.
_GONE = {"--keep-spool": "type `--keep raw`, which leaves the raw depth in a file that `dc-rt deliver` reads"}


class Command(TyperCommand):
    """A command that knows what users of the original type: its usage errors say what to type instead."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as any command does; a mistake of that kind is one sentence and the status of a usage error."""
        options = [option for option in self.params if option.param_type_name == "option"]
        takes_value = {flag: not getattr(option, "is_flag", False) for option in options for flag in option.opts}
        if sentence := _of_another_version(args) or mistake(args, takes_value):
            complain(sentence)
            raise typer.Exit(_USAGE_STATUS)
        rest = super().parse_args(ctx, args)
        # The first versions of typer give paths as text here, later ones as paths.
        paths = {each.name for each in self.params if getattr(getattr(each, "type", None), "name", "") in _PATHS}
        ctx.params = {name: _at_home(value, name in paths) for name, value in ctx.params.items()}
        return rest


def _at_home(value: Any, is_path: bool) -> Any:
    """A path, or several, with `~` as the home folder where the shell left it: in `--engines=~/x`, and on Windows."""
    if isinstance(value, list | tuple):
        return type(value)(_at_home(each, is_path) for each in value)
    if not (isinstance(value, Path) or (is_path and isinstance(value, str))) or not str(value).startswith("~"):
        return value
    # What is there under the very name is that: "./~" is a path of its own.
    return value if os.path.lexists(value) else type(value)(os.path.expanduser(value))  # noqa: PTH111 - pathlib's raises


def _of_another_version(args: list[str]) -> str:
    """What to say of an option that there was before."""
    gone = next((word for word in args if word in _GONE), "")
    return f"There is no option {gone} any more; {_GONE[gone]}." if gone else ""
