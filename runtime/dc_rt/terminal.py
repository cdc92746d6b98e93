"""How the commands write to a terminal.

Colour is rich's decision everywhere, so that it is one: none where NO_COLOR is set, where TERM is dumb, or where a file
or a pipe is written, unless FORCE_COLOR asks for it.
"""

from __future__ import annotations

import os
from typing import TextIO


def complain(sentence: str) -> None:
    """Print to standard error what is wrong."""
    from rich.console import Console
    from rich.text import Text

    # As it is: a file's name may hold what rich takes for markup.
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)


def can_redraw(stream: TextIO) -> bool:
    """Whether a line that is written can be drawn over, as progress bars are."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
