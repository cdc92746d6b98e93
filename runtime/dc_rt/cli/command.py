"""A command that knows what users of the original type."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from dc_rt.cli.original import mistake
from dc_rt.cli.terminal import complain

_USAGE_STATUS = 2  # that of all wrong usage

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
        return super().parse_args(ctx, args)


def _of_another_version(args: list[str]) -> str:
    """What to say of an option that there was before."""
    gone = next((word for word in args if word in _GONE), "")
    return f"There is no option {gone} any more; {_GONE[gone]}." if gone else ""
