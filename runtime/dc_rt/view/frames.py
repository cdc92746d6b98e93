"""Frames of a result that are shown, and the files that are made of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError, option
from dc_rt.job.spool import write_whole
from dc_rt.stored import Stored

PROGRAM = "DepthCrafter-RT"
"""What all of these files say near their beginning, by which they are known as ours."""

_BEGINNING = 400  # bytes of a file in which that is


class Frame(NamedTuple):
    """One frame.

    Attributes:
        number: counted from 0, in the result.
        depth: disparity, float32 [H,W] in [0,1].
        image: uint8 [H,W,3].
    """

    number: int
    depth: NDArray[np.float32]
    image: NDArray[np.uint8]


def frames_of(stored: Stored, numbers: range) -> Iterator[Frame]:
    """The frames of these numbers, one after the other; raises `UserError` as `Stored` does."""
    for number, (depth, image) in enumerate(zip(stored.depth(), stored.images(), strict=True)):
        if number in numbers:
            yield Frame(number, depth, image)
        if number >= numbers[-1]:
            return


def check_ours(path: Path, name: str) -> None:
    """Raise `UserError` where there is something at `path` that was not written here.

    Args:
        path: of a file that is to be written.
        name: of the option that says where, "glb" for example.
    """
    if not os.path.lexists(path):
        return
    try:
        is_ours = path.is_file() and PROGRAM.encode() in _beginning(path)
    except OSError as error:
        raise unwritable(path, name, error) from error
    if not is_ours:
        raise UserError(
            f"{path} was not written by dc-rt view; move it away, or name another place with {option(name)}."
        )


def write_file(path: Path, contents: bytes, name: str) -> None:
    """Write a file whole, or not at all; raises `UserError` naming the option `name` where the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, contents)
    except FileExistsError as error:  # what mkdir raises where a file is in the place of a folder
        raise unwritable(path, name, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from error
    except OSError as error:
        raise unwritable(path, name, error) from error


def unwritable(path: Path, name: str, error: OSError) -> UserError:
    """What to say where the disk refuses."""
    return UserError(f"{path} cannot be written ({error.strerror}); name another place with {option(name)}.")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING)
