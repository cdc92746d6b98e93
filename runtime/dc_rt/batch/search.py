"""Videos in folders, and those that a pattern means: what is found without being named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dc_rt.job.targets import Written
from dc_rt.media.container import is_video
from dc_rt.media.read_images import is_image, natural_key
from dc_rt.media.sequence import files_of, is_like, is_pattern, is_wild

_ANY_DEPTH = "**"


@dataclass(frozen=True)
class _Place:
    """A folder, and in the order of their names the files and folders in it: not hidden, nor written by dc-rt."""

    folder: Path
    files: list[Path]
    folders: list[Path]


class Search:
    """A search that stays out of one folder, where the results go, unless it begins in there.

    Attributes:
        unreadable: the folders that could not be looked into, and why not.
    """

    def __init__(self, save_folder: Path) -> None:
        self.unreadable: dict[Path, OSError] = {}
        self._save_folder = os.path.realpath(save_folder)

    def videos_below(self, folder: Path) -> Iterator[Path]:
        """The videos in a folder and in those below it, and the folders that hold images.

        Hidden ones are none of them, nor is what dc-rt wrote, as far as a record in one of these folders tells.
        """
        for place in self._places_like(folder, [_ANY_DEPTH]):
            if any(map(is_image, place.files)):
                yield place.folder
            yield from filter(is_video, place.files)

    def videos_like(self, pattern: Path) -> tuple[Path, list[Path]]:
        """The folder where a pattern begins to be one, and the videos that it means.

        `*`, `?` and `**` may stand in the names of folders too. Where the last name means images alone, they are one
        sequence in each folder; else it means each video or image, each file of a suffix that it states, and all that
        is below each folder.
        """
        *above, name = pattern.parts
        fixed = next((at for at, part in enumerate(above) if is_wild(part)), len(above))
        root, between = Path(*above[:fixed]), above[fixed:]
        found: list[Path] = []
        for place in self._places_like(root, between):
            found += self.videos_below(place.folder) if name == _ANY_DEPTH else self._named(place, name)
        return root, found

    def _named(self, place: _Place, name: str) -> Iterator[Path]:
        """What is called so in a folder."""
        path = place.folder / name
        if not is_wild(name):
            if path in place.folders:
                yield from self.videos_below(path)
            elif path in place.files or (is_pattern(path) and files_of(path)):
                yield path
            return
        files = [file for file in place.files if is_like(file.name, name)]
        if files and all(map(is_image, files)):
            yield path
        else:
            is_of_one_suffix = path.suffix not in ("", ".") and not is_wild(path.suffix)
            yield from (file for file in files if is_of_one_suffix or is_video(file) or is_image(file))
        for folder in place.folders:
            if is_like(folder.name, name):
                yield from self.videos_below(folder)

    def _places_like(self, root: Path, patterns: Sequence[str]) -> Iterator[_Place]:
        """The folder, and those in it and below, whose names from there on are those that the patterns mean.

        Links are followed, but for those back to where they are. A folder that many ways lead to is looked through once
        for each manner in which they match: where folders link to one another, there are more ways than can be gone.
        """
        passed: set[tuple[str, frozenset[int]]] = set()

        def places(folder: Path, matched: frozenset[int], above: tuple[Written, ...]) -> Iterator[_Place]:
            here = os.path.realpath(folder)
            if not matched or (here, matched) in passed:
                return
            passed.add((here, matched))
            above = (*above, Written.in_folder(folder))
            place = self._look_into(folder, above)
            if len(patterns) in matched:
                yield place
            if matched == {len(patterns)}:
                return
            closed = {self._save_folder, *(os.path.realpath(written.folder) for written in above)}
            for below in place.folders:
                if os.path.realpath(below) not in closed:
                    yield from places(below, _matched_with(below.name, matched, patterns), above)

        yield from places(root, _skipping(frozenset({0}), patterns), ())

    def _look_into(self, folder: Path, above: Sequence[Written]) -> _Place:
        files: list[Path] = []
        folders: list[Path] = []
        try:
            names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - there may be very many
        except OSError as error:
            self.unreadable[folder] = error
            names = []
        for path in sorted((folder / name for name in names), key=natural_key):
            if os.path.isdir(path):  # noqa: PTH112 - pathlib's may raise
                folders.append(path)
            elif os.path.isfile(path) and not any(written.holds(path) for written in above):  # noqa: PTH113
                files.append(path)
        return _Place(folder, files, folders)


def _matched_with(name: str, matched: frozenset[int], patterns: Sequence[str]) -> frozenset[int]:
    """How many of the patterns may be matched once one more folder's name is, of how many were."""
    after = set()
    for count in matched - {len(patterns)}:
        if patterns[count] == _ANY_DEPTH:
            after.add(count)
        elif is_like(name, patterns[count]):
            after.add(count + 1)
    return _skipping(frozenset(after), patterns)


def _skipping(matched: frozenset[int], patterns: Sequence[str]) -> frozenset[int]:
    """The same with each `**` that comes next passed over, which matches no folder too."""
    for count, pattern in enumerate(patterns):
        if pattern == _ANY_DEPTH and count in matched:
            matched |= {count + 1}
    return matched
