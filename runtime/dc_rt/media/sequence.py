"""Sequences of images by a pattern, as film programs name them: which files it means, and which are missing.

A pattern stands in the file's name: `shot.%04d.exr` or `shot.####.exr` for numbered frames, of which `[1001-1100]`
behind it takes some, and `*.png` for all files that are called so. What exists under the very name is that file.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.read_images import IMAGE_SUFFIXES, is_image, natural_key

_NUMBER = re.compile(r"%(?:0([1-9]))?d|(#+)")
_RANGE = re.compile(r"\[([^\[\]]+)\]$")
_SPAN = re.compile(r"([0-9]+)(?:-([0-9]+)(?:x([1-9][0-9]*))?)?")
_WILD = re.compile(r"[*?]")
_SEPARATORS = "._- "
_CASE = re.IGNORECASE if os.name == "nt" else re.NOFLAG  # as file systems have it
_MOST_FRAMES = 10_000_000  # in a range: a slip of the keyboard asks for more
_MOST_NAMED = 8  # runs of frames in a sentence


@dataclass(frozen=True)
class ImageSequence:
    """The images that a pattern means.

    Attributes:
        images: in the order in which they are shown.
        times: when, counted in frames from the first one: int64 [num_images], increasing. What a range leaves out
            leaves a gap.
    """

    images: tuple[Path, ...]
    times: NDArray[np.int64]


def is_pattern(path: Path) -> bool:
    """Whether a path names a sequence, or several files, rather than one file or folder that is there."""
    if os.path.lexists(path):
        return False
    name = _RANGE.sub("", path.name)
    return bool(_NUMBER.search(name) or _WILD.search(name))


def find_sequence(pattern: Path) -> ImageSequence:
    """The images that a pattern means.

    Raises:
        UserError: there are none, some are missing (all are named), or the pattern is none of a kind that is known.
        OSError: the folder cannot be read.
    """
    name = _RANGE.sub("", pattern.name)
    places = len(_NUMBER.findall(name)) + bool(_WILD.search(name))
    if places > 1:
        raise UserError(f"{pattern} has more than one place for a number; leave one, such as %04d.")
    return _of_wild(pattern) if _WILD.search(name) else _of_numbered(pattern)


def _of_wild(pattern: Path) -> ImageSequence:
    if _RANGE.search(pattern.name):
        raise UserError(f"{pattern} has a range and no place for a number; write %04d where the number stands.")
    images = sorted(matching(pattern), key=natural_key)
    _check_there(pattern, images)
    if others := [path for path in images if not is_image(path)]:
        raise UserError(f"{pattern} means {others[0]} too, which is no image; a sequence is of images alone.")
    return ImageSequence(tuple(images), np.arange(len(images), dtype=np.int64))


def _of_numbered(pattern: Path) -> ImageSequence:
    if not is_image(Path(_RANGE.sub("", pattern.name))):
        raise UserError(f"There is no file {pattern}, and a sequence is of {', '.join(IMAGE_SUFFIXES)} files.")
    numbered = _numbered(pattern)
    _check_there(pattern, numbered)
    found = _RANGE.search(pattern.name)
    wanted = _parse_range(pattern, found[1]) if found else _from_first_to_last(pattern, numbered)
    if missing := [number for number in wanted if number not in numbered]:
        raise UserError(f"Of {pattern} {_named(missing)}; render them, or {_instead(pattern, wanted, numbered)}.")
    return ImageSequence(tuple(numbered[number] for number in wanted), np.array(wanted, np.int64) - wanted[0])


def matching(pattern: Path) -> list[Path]:
    """The files that a name with `*` or `?` means, as a shell has it: not those that start with a dot."""
    return sorted(path for path in _listed(pattern.parent) if is_like(path.name, pattern.name))


def is_like(name: str, wild: str) -> bool:
    """Whether a name is one that another with `*` or `?` means, as a shell has it: none that starts with a dot."""
    matches = re.compile(fnmatch.translate(_without_classes(wild)), _CASE).match
    return bool(matches(name)) and not name.startswith(".")


def is_wild(name: str) -> bool:
    """Whether it has `*` or `?`."""
    return bool(_WILD.search(name))


def files_of(pattern: Path) -> list[Path]:
    """All files that a pattern may mean, whatever its range. Raises `OSError` where the folder cannot be read."""
    return [*_numbered(pattern).values()] if _NUMBER.search(_RANGE.sub("", pattern.name)) else matching(pattern)


def sequence_name(pattern: Path) -> str:
    """What the results of a sequence are called: the pattern without its number, or after the folder."""
    stem = Path(_RANGE.sub("", pattern.name)).stem
    for pieces in (_NUMBER, _WILD):
        stem = pieces.sub("\0", stem)
    # What follows the number says less than what precedes it, but is better than nothing.
    name = next((part.strip(_SEPARATORS) for part in stem.split("\0") if part.strip(_SEPARATORS)), "")
    return name or pattern.parent.resolve().name or "sequence"


def _without_classes(name: str) -> str:
    """The name with its brackets taken as they are: they are common in names, and no class of characters here."""
    return name.replace("[", "[[]")


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except FileNotFoundError:
        return []


def _numbered(pattern: Path) -> dict[int, Path]:
    """The files by their numbers, whatever the range."""
    name = _RANGE.sub("", pattern.name)
    number = _NUMBER.search(name)
    assert number
    width = int(number[1] or 1) if number[2] is None else len(number[2])
    # As "%04d" writes them: wider numbers have no zeros in front.
    digits = f"[0-9]{{{width}}}|[1-9][0-9]{{{width},}}"
    whole = re.compile(f"{re.escape(name[: number.start()])}({digits}){re.escape(name[number.end() :])}", _CASE)
    return {int(match[1]): path for path in _listed(pattern.parent) if (match := whole.fullmatch(path.name))}


def _parse_range(pattern: Path, text: str) -> Sequence[int]:
    """The numbers of a range: "100-200", "100-200x2", "100,105-110"."""
    numbers: list[int] = []
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if not span or last < first or (numbers and first <= numbers[-1]) or last - first >= _MOST_FRAMES:
            raise UserError(
                f"{pattern} has a range that is none; write it as [100-200], [100-200x2] for every second frame, or "
                "[100-120,125-200], increasing."
            )
        numbers += range(first, last + 1, int(span[3] or 1))
    return numbers


def _from_first_to_last(pattern: Path, numbered: Collection[int]) -> Sequence[int]:
    first, last = min(numbered), max(numbered)
    if last - first >= _MOST_FRAMES:
        raise UserError(
            f"The files of {pattern} are numbered from {first} to {last}, more than a video has frames; give a range, "
            f"such as [{first}-{first + 100}], behind the name."
        )
    return range(first, last + 1)


def _named(missing: Sequence[int]) -> str:
    """ "the frames 103, 107-109 are missing"."""
    spans = _spans(missing)
    more = f" and {len(spans) - _MOST_NAMED} more gaps" if len(spans) > _MOST_NAMED else ""
    named = ", ".join(spans[:_MOST_NAMED])
    return f"the frames {named}{more} are missing" if len(missing) > 1 else f"the frame {named} is missing"


def _instead(pattern: Path, wanted: Sequence[int], numbered: Collection[int]) -> str:
    """What to type so that the missing frames leave gaps."""
    spans = _spans([number for number in wanted if number in numbered])
    if not 0 < len(spans) <= _MOST_NAMED:
        return "give a range of frames that are there, such as [100-120,125-200]"
    name = _RANGE.sub("", pattern.name)
    return f'leave gaps there with "{pattern.parent / name}[{",".join(spans)}]"'


def _spans(numbers: Sequence[int]) -> list[str]:
    """Runs of increasing numbers without a gap: "103" or "107-109"."""
    runs = np.split(np.array(numbers, np.int64), np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs if len(run)]


def _check_there(pattern: Path, found: object) -> None:
    if not found:
        raise UserError(f"There is no file {pattern}, and none that this pattern means; check the name and the folder.")
