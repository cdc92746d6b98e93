"""The one exception for what a user can cause, and how its sentence names options."""

from __future__ import annotations

import re
from collections.abc import Callable

# An option in a sentence: its name, its value as it is typed, and as Python has it. No path can contain a NUL, so that
# nothing else is taken for one.
_OPTION = re.compile("\0([^\0]*)\0([^\0]*)\0([^\0]*)\0")

Word = Callable[[str, str, str], str]
"""Words an option: given its name, its value as it is typed and as Python has it, both "" where it has none."""


class UserError(Exception):
    """What is wrong and the fix, in one sentence.

    The command line prints the sentence and exits with status 1; every other exception is a bug. The sentence names
    options as Python does (`max_res=1024`); a command line words them its own way (`worded`).

    Attributes:
        sentence: with its options marked, as `option` made them.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return worded(self.sentence, _as_keyword)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that the sentence is about, as Python has them."""
        return tuple(dict.fromkeys(match[1] for match in _OPTION.finditer(self.sentence)))


def option(name: str, value: object = None) -> str:
    """An option to be named in a sentence: `option("max_res", 1024)` is `max_res=1024`, or `--max-res 1024`.

    One that takes no value on a command line is named with True: `overwrite=True`, or `--overwrite`.
    """
    if value is None:
        return f"\0{name}\0\0\0"
    plain = value if isinstance(value, bool | int | float) else str(value)
    return f"\0{name}\0{'' if value is True else plain}\0{plain!r}\0"


def worded(sentence: str, word: Word) -> str:
    """The sentence with each of its options as `word` has it."""
    return _OPTION.sub(lambda match: word(*match.groups()), sentence)


def _as_keyword(name: str, typed: str, value: str) -> str:
    return f"{name}={value}" if value else name
