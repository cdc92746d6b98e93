"""What a batch is to run: tasks for all videos that its inputs mean, and the sentences for those that cannot be run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from dc_rt.batch.manifest import BadLine, Line, is_manifest, read_manifest
from dc_rt.batch.search import Search
from dc_rt.errors import UserError, option
from dc_rt.job import Task
from dc_rt.job.spool import usual_name
from dc_rt.job.targets import Targets, conflicts, record_path, text
from dc_rt.media.container import VIDEO_SUFFIXES
from dc_rt.media.pipe import is_pipe
from dc_rt.media.sequence import is_pattern, is_wild
from dc_rt.options import Options
from dc_rt.outputs import STREAM


@dataclass(frozen=True)
class Refused:
    """What is not run: a video, a line of a manifest, a folder; where its results would have gone, and why not.

    The sentence has its options marked, as those of `UserError` have.
    """

    video: str
    save_folder: str
    sentence: str


def find_tasks(
    inputs: Sequence[Path], save_folder: Path, options: Options, restart: bool = False
) -> list[Task | Refused]:
    """The tasks of a batch, in the order of its inputs.

    Args:
        inputs: folders, which are searched; patterns with `*`, `?` or `**`; manifests; and videos: files, sequences.
        save_folder: where the results go, in the tree in which the videos lie below their inputs.
        options: of all videos, as far as no manifest has others of one.
        restart: throw away what unfinished runs did.

    Returns:
        A video that is named twice is there once, with what a manifest says of it. Refused are lines of manifests that
        are none, folders that cannot be looked into, inputs without a video, and videos whose results would overwrite
        those of others, or a video.

    Raises:
        UserError: there is no video in any of the inputs, or one is to come from or go to a pipe.
    """
    _check_no_stream(options)
    meant = _Meant(save_folder, options)
    entries = [entry for path in inputs for entry in meant.by(path)]
    if not entries:
        raise UserError(_nothing(*meant.without_video))
    entries += [Refused(where, text(save_folder), _nothing(where)) for where in meant.without_video]
    return list(_tasks(_once(entries), restart))


@dataclass(frozen=True)
class _Named:
    """A video, and how it is to be run; whether a manifest says so."""

    video: Path
    save_folder: Path
    options: Options
    is_listed: bool = False


class _Meant:
    """What inputs mean.

    Attributes:
        without_video: those that mean nothing.
    """

    def __init__(self, save_folder: Path, options: Options) -> None:
        self.without_video: list[str] = []
        self._save_folder = save_folder
        self._options = options

    def by(self, path: Path) -> Iterator[_Named | Refused]:
        """One of the inputs."""
        if is_pipe(path):
            raise UserError("A batch is of files alone, and - is none; name a file, or run it with dc-rt infer.")
        search = Search(self._save_folder)
        if os.path.isdir(path):  # noqa: PTH112 - pathlib's may raise
            yield from self._found(path, path, [*search.videos_below(path)], search)
        elif not os.path.lexists(path) and any(map(is_wild, path.relative_to(path.anchor).parts)):
            yield from self._found(path, *search.videos_like(path), search)
        elif is_manifest(path):
            yield from self._listed(path)
        else:
            yield self._mirrored(path, path.parent)

    def _found(self, path: Path, root: Path, videos: Sequence[Path], search: Search) -> Iterator[_Named | Refused]:
        yield from (self._mirrored(video, root) for video in videos)
        for folder, error in search.unreadable.items():
            sentence = f"{text(folder)} cannot be looked into: {error.strerror}; check the name and the permissions."
            yield self._refused(text(folder), sentence)
        if not videos and not search.unreadable:
            self.without_video.append(text(path))

    def _listed(self, manifest: Path) -> Iterator[_Named | Refused]:
        is_empty = True
        try:
            for line in read_manifest(manifest):
                is_empty = False
                try:
                    yield self._of_line(manifest, line)
                except UserError as error:
                    yield self._refused(f"{text(manifest)} line {line.number}", error.sentence)
        except UserError as error:
            yield self._refused(text(manifest), error.sentence)
        else:
            if is_empty:
                self.without_video.append(text(manifest))

    def _of_line(self, manifest: Path, line: Line | BadLine) -> _Named:
        """What a line of a manifest means; raises `UserError` if nothing."""
        if isinstance(line, BadLine):
            raise UserError(line.sentence)
        options = Options.by_name(line.options, self._options)
        _check_no_stream(options)
        video = manifest.parent / _at_home(line.video)
        if is_pipe(Path(line.video)):
            raise UserError("A batch is of files alone, and - is none; name a file.")
        if not (is_pattern(video) or os.path.lexists(video)):
            _check_text(line.video)
        named = self._mirrored(video, manifest.parent)
        save_folder = self._save_folder / _at_home(line.save_folder) if line.save_folder else named.save_folder
        return _Named(video, save_folder, options, is_listed=True)

    def _mirrored(self, video: Path, root: Path) -> _Named:
        """A video whose results lie below the save folder as it lies below `root`, if it does."""
        above = video.parent
        is_below = above.is_relative_to(root) and ".." not in above.relative_to(root).parts
        place = self._save_folder / above.relative_to(root) if is_below else self._save_folder
        return _Named(video, place, self._options)

    def _refused(self, video: str, sentence: str) -> Refused:
        return Refused(video, text(self._save_folder), sentence)


def _at_home(path: str) -> str:
    """With `~` as the home folder, as in what is typed."""
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib's raises where there is no such user


def _check_text(name: str) -> None:
    """Raise `UserError` for the name of a file that is not there, if it is no text, as names of files may be."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"There is no file {text(name)}, whose name is not in UTF-8; save the list in UTF-8."
        ) from error


def _once(entries: Sequence[_Named | Refused]) -> Iterator[_Named | Refused]:
    """All of them but for videos that are named again: what a manifest says of one counts."""
    listed = {_identity(entry.video) for entry in entries if isinstance(entry, _Named) and entry.is_listed}
    passed = set()
    for entry in entries:
        if isinstance(entry, _Named):
            video = _identity(entry.video)
            if not entry.is_listed and video in listed:
                continue
            key = (video, os.path.realpath(entry.save_folder), entry.options) if entry.is_listed else (video,)
            if key in passed:
                continue
            passed.add(key)
        yield entry


def _identity(video: Path) -> str:
    """What is the same for all ways to name one, but for links to it, whose results have names of their own."""
    if video.name in ("", ".."):
        return os.path.realpath(video)
    return os.path.join(os.path.realpath(video.parent), os.path.normcase(video.name))  # noqa: PTH118 - a key, no path


def _tasks(entries: Iterator[_Named | Refused], restart: bool) -> Iterator[Task | Refused]:
    """Tasks for those that can be run beside all the others."""
    found = list(entries)
    named = [each for each in found if isinstance(each, _Named)]
    sentences = conflicts([_targets(each) for each in named])
    places = count()
    for each in found:
        if isinstance(each, Refused):
            yield each
        elif sentence := sentences.get(next(places)):
            yield Refused(text(each.video), text(each.save_folder), sentence)
        else:
            yield Task(os.fspath(each.video), os.fspath(each.save_folder), each.options, restart, skip_done=True)


def _targets(named: _Named) -> Targets:
    """Where its results go; the folder is not searched for its spool, which would take long where there are many."""
    where = named.video, named.save_folder, named.options.outputs
    return Targets.of(*where, named.save_folder / usual_name(record_path(*where).stem))


def _check_no_stream(options: Options) -> None:
    if STREAM in options.outputs.names:
        raise UserError(f"{option('outputs', STREAM)} is one stream, for one video; leave it out of a batch.")


def _nothing(*inputs: str) -> str:
    where, some = ", ".join(inputs), ", ".join(VIDEO_SUFFIXES[:4])
    if all(is_manifest(Path(each)) and not Path(each).is_dir() for each in inputs):
        return f"There is no video in {where}; write a line for each."
    return (
        f"There is no video in {where}: videos are folders of images, and files that end in {some} or the like; "
        "name one that is called otherwise."
    )
