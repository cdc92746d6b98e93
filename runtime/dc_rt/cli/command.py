"""A command that knows what users of the original type."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from dc_rt.cli.original import mistake
from dc_rt.cli.terminal import complain

_USAGE_STATUS = 2  # that of all wrong usage


class Command(TyperCommand):
    """A command that knows what users of the original type: its usage errors say what to type instead."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as any command does; a mistake of that kind is one sentence and the status of a usage error."""
        options = [option for option in self.params if option.param_type_name == "option"]
        takes_value = {flag: not getattr(option, "is_flag", False) for option in options for flag in option.opts}
        if sentence := mistake(args, takes_value):
            complain(sentence)
            raise typer.Exit(_USAGE_STATUS)
        return super().parse_args(ctx, args)
