"""How the commands write to a terminal.

Colour is rich's decision everywhere, so that it is one: none where NO_COLOR is set, where TERM is dumb, or where a file
or a pipe is written, unless FORCE_COLOR asks for it.
"""

from __future__ import annotations

import os
from typing import TextIO

from dc_rt.errors import UserError, worded
from dc_rt.options import as_flag


def complain(sentence: str) -> None:
    """Print to standard error what is wrong."""
    from rich.console import Console
    from rich.text import Text

    # As it is: a file's name may hold what rich takes for markup.
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)


def can_redraw(stream: TextIO) -> bool:
    """Whether a line that is written can be drawn over, as progress bars are."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def say(*lines: str) -> None:
    """Print lines to standard output, their options as flags."""
    for line in lines:
        print(worded(line, as_flag), flush=True)


def sentence_of(error: UserError | OSError) -> str:
    """What is wrong and the fix, with options as they are typed."""
    if isinstance(error, OSError):
        return f"A file cannot be read or written ({error}); check its name, its permissions and the disk."
    return worded(error.sentence, as_flag)
