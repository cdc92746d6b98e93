"""Names that clients give, and paths that they are not to see."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_LONGEST_SHOWN = 200
_LONGEST = 40  # of letters, each of which may take four bytes of the 255 that a name may have
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # which Windows takes for no files


def shown_name(given: str) -> str:
    """What a file that a client sends is called in its job: the client's own name for it, as text and nothing else."""
    text = given.encode("utf-8", "replace").decode().replace("\\", "/").rpartition("/")[2]
    printable = "".join(letter for letter in text if letter.isprintable()).strip()
    return printable[:_LONGEST_SHOWN] or "video"


def result_name(shown: str) -> str:
    """What the results of a job are called: made of the name that is shown, of letters, digits, `_`, `-` and `.`."""
    stem = unicodedata.normalize("NFC", shown).rpartition(".")[0] or shown
    name = _NOT_IN_NAMES.sub("_", stem)[:_LONGEST].strip("._-") or "video"
    return f"{name}_" if _DEVICES.fullmatch(name) else name


def without_paths(text: str, names: Mapping[str, str]) -> str:
    """A sentence in which paths of this machine's are called by names; the longest path is looked for first."""
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text
