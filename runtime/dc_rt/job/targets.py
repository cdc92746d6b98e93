"""Which files a run writes, whose those are that are there already, and whether the new ones can be written.

All of it is known before any work is done: nothing here reads more of a video than its header, or writes a result.
What dc-rt wrote under a name is told by `NAME.json`, which lists the files of all runs under that name and their sizes.
Until it is in place, and it comes last, the record that waits in the spool tells the same, or `moved.json` there after
another run has begun.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from stat import S_ISREG
from typing import Any

from dc_rt.errors import UserError, option
from dc_rt.job.spool import MOVED, find_spool, name_of_spool, usual_name, write_whole
from dc_rt.media.audio import audio_codec
from dc_rt.media.pipe import is_pipe
from dc_rt.media.read_images import is_image
from dc_rt.media.sequence import files_of, is_pattern, sequence_name
from dc_rt.options import Outputs
from dc_rt.outputs import RAW_SUFFIX, Output, all_outputs, frame_name, is_frame_name

Sizes = dict[str, set[int]]
"""By name, the sizes in bytes by which files are known as those that were written."""

Identity = tuple[int, int] | str
"""What a file is told by, whatever it is called: its device and number, or else its path."""

ANY_SIZE = -1  # of a file whose size was not recorded

_RECORD = ".json"
LEASE_SUFFIX = ".lease"

# What every record has had since the first release, which listed no files.
_RECORD_KEYS = ("model", "engines", "source", "result", "options", "timings", "versions")


def result_name(video: Path) -> str:
    """What results are called: after the file, the folder, the sequence or the raw file; `stdin` those of a pipe."""
    if is_pipe(video):
        return "stdin"
    if video.name.endswith(RAW_SUFFIX):
        return video.name.removesuffix(RAW_SUFFIX)
    if os.path.isdir(video):  # noqa: PTH112 - pathlib's may raise
        return video.resolve().name
    return sequence_name(video) if is_pattern(video) else video.stem


def record_path(video: Path, save_folder: Path, outputs: Outputs) -> Path:
    """Where the record of a run is once its results are in place."""
    return save_folder / f"{outputs.result_name or result_name(video)}{_RECORD}"


def text(path: str | Path) -> str:
    r"""A path as text that any encoding of Unicode takes: bytes that are no text become escapes such as \xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Targets:
    """Where the results of a video go.

    Attributes:
        video: it.
        save_folder: where all of them are.
        name: what they are called.
        files: names of those in the save folder itself.
        frames: suffixes of the frames in the folder `name`.
        spool: where the unfinished run is kept: a hidden folder beside its results.
        folders: other folders, by name: patterns of the files in them, as `Output.layout` has them.
    """

    video: Path
    save_folder: Path
    name: str
    files: tuple[str, ...]
    frames: tuple[str, ...]
    spool: Path
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, video: Path, save_folder: Path, outputs: Outputs, spool: Path | None = None) -> Targets:
        """The targets of a run that writes `outputs`; its spool is looked for in the folder, unless it is given."""
        sound = None
        if outputs.copies_sound:
            with suppress(UserError, OSError):  # what is no video is said where it is read
                sound = audio_codec(video)
        return cls.with_sound(video, save_folder, outputs, sound, spool)

    @classmethod
    def with_sound(
        cls, read: Path, save_folder: Path, outputs: Outputs, sound: str | None, spool: Path | None = None
    ) -> Targets:
        """The same of a video or a raw file, the codec of whose sound is known (`VideoInfo.sound`)."""
        name = outputs.result_name or result_name(read)
        rows = outputs.rows_with(sound)
        spool = spool or find_spool(save_folder, name)
        return cls(read, save_folder, name, *_names(name, rows), spool, _folders(name, rows))

    @property
    def frame_folder(self) -> Path:
        """Where frames go, if any do."""
        return self.save_folder / self.name

    @property
    def record(self) -> Path:
        """Tells what dc-rt wrote under this name."""
        return self.save_folder / f"{self.name}.json"

    @property
    def lease(self) -> Path:
        """What many workers share their work by (`dc_rt.lease`), where there are many."""
        return self.save_folder / f".{self.name}{LEASE_SUFFIX}"

    def names(self) -> tuple[str, ...]:
        """Of all that is written in the save folder itself."""
        return (*self.files, self.spool.name, *([self.name] if self.frames else []), *self.folders)

    def occupied(self) -> Iterator[Path]:
        """What is there and would be replaced, or removed as a frame of a longer run."""
        for name in self.files:
            if os.path.lexists(path := self.save_folder / name):
                yield path
        for name, layout in self.folders.items():
            yield from laid_out(self.save_folder / name, layout)
        if not self.frames or not os.path.lexists(self.frame_folder):
            return
        if not self.frame_folder.is_dir():
            yield self.frame_folder
            return
        for name in sorted(os.listdir(self.frame_folder)):  # noqa: PTH208 - there may be very many
            if is_frame_name(name, self.frames):
                yield self.frame_folder / name

    def check(self, overwrite: bool = False, *, at_the_end: bool = False) -> None:
        """Look at where the results are to go.

        Args:
            overwrite: let files be replaced that dc-rt did not write; folders never are.
            at_the_end: the work is done, and kept.

        Raises:
            UserError: a name or path is too long, the folder cannot be looked at, or what is there is not dc-rt's.
        """
        _check_lengths(self)
        _check_writable(self.save_folder)
        try:
            written = self._written()
            foreign = [path for path in self.occupied() if not self._is_ours(path, written)]
        except OSError as error:
            raise unwritable(self.frame_folder, error) from error
        folders = [path for path in foreign if path.is_dir() and not path.is_symlink()]
        kept = ", and the same command resumes it" if at_the_end else ""
        if folders:
            raise UserError(f"{folders[0]} is a folder where a file is to be written; move it away{kept}.")
        if foreign and not overwrite:
            more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
            elsewhere = "move it away" if at_the_end else f"give another {option('save_folder')}"
            raise UserError(
                f"{foreign[0]}{more} was not written by dc-rt; {elsewhere}, or replace it with "
                f"{option('overwrite', True)}{kept}."
            )

    def remember_moves(self) -> None:
        """Keep, in the open spool, what an earlier run may have moved into place before it was killed.

        Its list is in its record among the results that it had not moved yet, which are removed next.
        """
        if staged := _listed(_read_record(self.spool / "results" / self.record.name), self.name):
            moved = _merged(_read_moved(self.spool), staged)
            contents = json.dumps({name: sorted(sizes) for name, sizes in moved.items()})
            write_whole(self.spool / MOVED, contents.encode())

    def list_files(self, staging: Path) -> dict[str, int]:
        """Bytes by name of what dc-rt will have written when all in `staging` is in place, but for the record.

        What earlier runs wrote and this one leaves is among it.
        """
        listed = {
            text(path.relative_to(staging).as_posix()): path.stat().st_size
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        to_be_replaced = {*self.occupied()}
        written = self._written()
        for path in self._with_everything().occupied():
            if path not in to_be_replaced and path != self.record and self._is_ours(path, written):
                listed.setdefault(self._key(path), path.stat().st_size)
        return listed

    def read_record(self) -> dict[str, Any] | None:
        """The record of the last run under this name; None where there is none, or something else."""
        return _read_record(self.record)

    def files_of(self, record: dict[str, Any]) -> tuple[Path, ...] | None:
        """Paths of all that a run would write now, if the record has them and they are as they were left.

        Files, folders of frames and other folders, the record last; None where anything is missing or has changed.
        """
        written = _listed(record, self.name)
        num_frames = record["result"].get("num_frames", 0)
        expected = [text(name) for name in self.files if name != self.record.name]
        for suffix in self.frames:
            frames = [name for name in written if name.startswith(f"{text(self.name)}/") and name.endswith(suffix)]
            if len(frames) < num_frames:
                return None
            expected += frames
        for folder in self.folders:
            inside = [name for name in written if name.startswith(f"{text(folder)}/")]
            if not inside:
                return None
            expected += inside
        there = {self._key(path) for path in self.occupied() if self._is_ours(path, written)}
        if not there.issuperset(expected):
            return None
        names = (*self.files[:-1], *([self.name] if self.frames else []), *self.folders, self.record.name)
        return tuple(self.save_folder / name for name in names)

    def _with_everything(self) -> Targets:
        rows = all_outputs().values()
        _, frames = _names(self.name, rows)
        suffixes = frozenset[str]().union(*(row.ever for row in rows if row.kind == "file"))
        files = (*(f"{self.name}{suffix}" for suffix in sorted(suffixes)), self.record.name)
        return replace(self, files=files, frames=frames, folders=_folders(self.name, rows))

    def _key(self, path: Path) -> str:
        return text(path.relative_to(self.save_folder).as_posix())

    def _written(self) -> Sizes:
        """What dc-rt wrote here under this name, by all that tells."""
        record = _read_record(self.record)
        waiting = _read_record(self.spool / "results" / self.record.name)
        itself: Sizes = {text(self.record.name): {ANY_SIZE}} if record else {}
        return _merged(itself, _listed(record, self.name), _listed(waiting, self.name), _read_moved(self.spool))

    def _is_ours(self, path: Path, written: Sizes) -> bool:
        return _is_written(path, written.get(self._key(path)))


@dataclass(frozen=True)
class Written:
    """What dc-rt wrote in a folder and in those of its results, under any name.

    Attributes:
        folder: it.
        sizes: of the files, by their names in the folder.
    """

    folder: Path
    sizes: Sizes

    @classmethod
    def in_folder(cls, folder: Path) -> Written:
        """By the records there, and those of unfinished runs; nothing in a folder that cannot be looked into."""
        names: list[str] = []
        with suppress(OSError):
            names = os.listdir(folder)  # noqa: PTH208 - there may be very many
        told_of: list[tuple[str, str | None]] = [
            (name.removesuffix(_RECORD), None) for name in names if name.endswith(_RECORD)
        ]
        told_of += [(name, spool) for spool in names if (name := name_of_spool(spool))]
        every = (Targets(folder, folder, name, (), (), folder / (spool or usual_name(name))) for name, spool in told_of)
        return cls(folder, _merged(*(targets._written() for targets in every)))

    def holds(self, path: Path) -> bool:
        """Whether dc-rt wrote a file in the folder or below it, and it is as it was left."""
        return _is_written(path, self.sizes.get(text(path.relative_to(self.folder).as_posix())))


def _is_written(path: Path, sizes: set[int] | None) -> bool:
    """Whether a file has one of the sizes by which it is known."""
    if not sizes:
        return False
    try:
        found = path.stat()
    except FileNotFoundError:  # a link to nothing
        return False
    return S_ISREG(found.st_mode) and (ANY_SIZE in sizes or found.st_size in sizes)


def check_batch(batch: Sequence[Targets]) -> None:
    """Raise `UserError` where videos of one batch would overwrite each other's results, or results what is read."""
    counts = Counter(targets.name for targets in batch)
    if double := [name for name, count in counts.items() if count > 1]:
        raise UserError(
            f"More than one video is called {double[0]}; run them one by one with a {option('save_folder')} each."
        )
    for _, sentence in _conflicts(batch):
        raise UserError(sentence)


def conflicts(batch: Sequence[Targets]) -> dict[int, str]:
    """Which videos of a batch, of several folders, cannot be run beside the others: their places in it, and why not."""
    found: dict[int, str] = {}
    for places, sentence in _conflicts(batch):
        for place in places:
            found.setdefault(place, sentence)
    return found


def _conflicts(batch: Sequence[Targets]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Places in the batch and a sentence, for each reason why videos cannot be run together."""
    yield from _read_and_written(batch)
    yield from _written_twice(batch)


def _written_twice(batch: Sequence[Targets]) -> Iterator[tuple[tuple[int, int], str]]:
    # On many systems names are one that differ in case, or in how accents are encoded.
    alike: defaultdict[str, list[tuple[Path, int]]] = defaultdict(list)
    for place, targets in enumerate(batch):
        folder = Path(os.path.realpath(targets.save_folder))
        for name in targets.names():
            alike[unicodedata.normalize("NFC", str(folder / name)).casefold()].append((folder / name, place))
    for group in alike.values():
        for (path, first), (other, second) in combinations(group, 2):
            if first != second and _is_one_path(path, other):
                yield (
                    (first, second),
                    f"{batch[first].video} and {batch[second].video} would both write "
                    f"{batch[first].save_folder / path.name}; "
                    f"run them one by one with a {option('save_folder')} each.",
                )


def _is_one_path(first: Path, second: Path) -> bool:
    """Whether two paths whose names differ in case or accents, if they do, are one."""
    differing = [(one, other) for one, other in zip(first.parts, second.parts, strict=True) if one != other]
    return all(_is_one_name(one, other, _existing(first.parent)) for one, other in differing)


def _is_one_name(first: str, second: str, folder: Path) -> bool:
    """Whether the file system of `folder` takes the two for one name."""
    try:
        with tempfile.TemporaryDirectory(prefix=".dc-rt-", dir=folder) as trial:
            Path(trial, first).touch()
            return os.path.lexists(Path(trial, second))
    except OSError:  # where nothing can be written, nothing is overwritten
        return False


def _read_and_written(batch: Sequence[Targets]) -> Iterator[tuple[tuple[int], str]]:
    folders = {_identity(targets.video): targets.video for targets in batch if _is_folder(targets.video)}
    inputs = {_identity(file) for targets in batch for file in _files(targets.video)}
    spools = {_identity(targets.spool) for targets in batch}
    for place, targets in enumerate(batch):
        if sentence := _overwritten(targets, folders, inputs, spools):
            yield (place,), sentence


def _overwritten(
    targets: Targets, folders: Mapping[Identity, Path], inputs: Collection[Identity], spools: Collection[Identity]
) -> str:
    """What of the videos that are read the results of one would be written over, or among; "" where nothing is."""
    for place in (targets.save_folder, *([targets.frame_folder] if targets.frames else [])):
        if mixed := folders.get(_identity(place)):
            return (
                f"The images of {mixed} would be mixed with the results of {targets.video}; "
                f"give another {option('save_folder')} than the one that it is in."
            )
    paths = {targets.save_folder / name for name in targets.names()}
    with suppress(OSError):  # of a folder that cannot be read, as `Targets.check` says
        paths.update(targets.occupied())
    for path in sorted(paths):
        if _identity(path) in inputs or _identity(path) in folders:
            return (
                f"{path} is to be read, and would be overwritten by the results of {targets.video}; "
                f"give another {option('save_folder')}."
            )
    if any(_identity(folder) in spools for folder in Path(os.path.realpath(targets.video)).parents):
        return f"{targets.video} is in the folder of an unfinished run; move it out of there."
    return ""


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - pathlib's raises where a folder above cannot be read


def _files(video: Path) -> list[Path]:
    """The files that may be read of a video, none of a folder that cannot be looked at: reading it says why."""
    try:
        if _is_folder(video):
            return [path for path in video.iterdir() if is_image(path)]
        if is_pattern(video):
            return files_of(video)
    except OSError:
        return []
    return [] if is_pipe(video) else [video]


def _identity(path: Path) -> Identity:
    """What is the same for all names of a file or folder; of one that is not there, where it would be."""
    with suppress(OSError):
        found = path.stat()
        if found.st_ino:  # some file systems number nothing
            return found.st_dev, found.st_ino
    return os.path.normcase(os.path.realpath(path))


def _check_lengths(targets: Targets) -> None:
    """Raise `UserError` for names and paths that the file system does not take."""
    folder = _existing(targets.save_folder)
    longest = max(targets.names(), key=_length)
    excess = _length(longest) - _longest_name(folder)
    if excess > 0:
        raise UserError(
            f"The results of {targets.video} would have names of up to {_length(longest)} bytes, {excess} more than "
            f"the file system of {folder} takes; give the video a shorter name."
        )
    staged = [longest, *(f"{targets.name}/{frame_name(10**5, suffix)}" for suffix in targets.frames)]
    staged += [
        f"{name}/{pattern.replace('*', '0' * 8)}" for name, layout in targets.folders.items() for pattern in layout
    ]
    try:
        os.lstat(max((targets.spool / "results" / name for name in staged), key=lambda path: _length(str(path))))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(
                f"The paths of the results of {targets.video} would be longer than this system takes; "
                f"give a shorter {option('save_folder')}."
            ) from error
    choosy = [row for row in all_outputs().values() if row.takes_only_text and row.suffix in targets.frames]
    if choosy and text(targets.frame_folder) != str(targets.frame_folder):
        raise UserError(
            f"{choosy[0].name.upper()} files cannot be written to {targets.frame_folder}, a name that is no text; "
            "rename the video."
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if _is_folder(path) or path == path.parent)


if sys.platform == "win32":

    def _length(name: str) -> int:
        return len(name.encode("utf-16-le", "surrogatepass")) // 2

    def _longest_name(folder: Path) -> int:
        return 255
else:

    def _length(name: str) -> int:
        return len(os.fsencode(name))

    def _longest_name(folder: Path) -> int:
        """In bytes."""
        try:
            return os.pathconf(folder, "PC_NAME_MAX")
        except OSError:
            return 255


def _check_writable(folder: Path) -> None:
    """Raise `UserError` for what is no folder, or one that nothing can be written to; it need not be there yet."""
    try:
        folder.stat()
    except FileNotFoundError:
        folder = _existing(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    for wrong, number in (not folder.is_dir(), errno.ENOTDIR), (not os.access(folder, os.W_OK | os.X_OK), errno.EACCES):
        if wrong:
            raise unwritable(folder, OSError(number, os.strerror(number)))


def unwritable(folder: Path, error: OSError) -> UserError:
    """What to say of a folder that results are to go to."""
    return UserError(
        f"Results cannot be written to {folder} ({error.strerror}); "
        f"check the folder's permissions, or give another {option('save_folder')}."
    )


def laid_out(folder: Path, layout: Iterable[str]) -> Iterator[Path]:
    """The files in a folder that match the patterns of a layout, in its order; what is in the place of a folder."""
    for pattern in layout:
        place = folder / pattern.rpartition("/")[0]
        if place.is_dir():
            names = sorted(os.listdir(place))  # noqa: PTH208 - there may be very many
            yield from (place / name for name in names if fnmatchcase(name, pattern.rpartition("/")[2]))
        elif os.path.lexists(place):
            yield place
        elif os.path.lexists(folder) and not folder.is_dir():
            yield folder
            return


def _folders(name: str, outputs: Iterable[Output]) -> dict[str, tuple[str, ...]]:
    """Layouts of the folders of these outputs, by their names."""
    return {f"{name}{row.suffix}": row.layout for row in outputs if row.kind == "folder"}


def _names(name: str, outputs: Iterable[Output]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files, and suffixes of the frames, of these outputs; the record comes last."""
    rows = tuple(outputs)
    files = [f"{name}{suffix}" for row in rows if row.kind == "file" for suffix in row.files]
    return (*files, f"{name}{_RECORD}"), tuple(row.suffix for row in rows if row.is_frames)


def _read_record(path: Path) -> dict[str, Any] | None:
    """A record that dc-rt wrote; None where there is none, or something else."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(record, dict) and all(isinstance(record.get(key), dict) for key in _RECORD_KEYS):
        return record
    return None


def _listed(record: dict[str, Any] | None, name: str) -> Sizes:
    """What a record says was written."""
    if record is None:
        return {}
    if "files" in record:
        return _sizes(record["files"])
    # The first release listed no files: those that its options, which were called as their flags, imply.
    options = {f"--{key.replace('_', '-')}" for key, value in record["options"].items() if value is True}
    files, frames = _names(name, [row for row in all_outputs().values() if row.is_default or row.flag in options])
    num_frames = record["result"].get("num_frames")
    indices = range(num_frames) if isinstance(num_frames, int) else ()
    numbered = (f"{name}/{frame_name(i, suffix)}" for suffix in frames for i in indices)
    return {text(file): {ANY_SIZE} for file in (*files, *numbered)}


def _read_moved(spool: Path) -> Sizes:
    try:
        return _sizes(json.loads((spool / MOVED).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def _sizes(listed: Any) -> Sizes:
    """Sizes by name as read from JSON: one, or a list of them."""
    if not isinstance(listed, dict):
        return {}
    return {
        name: {size for size in (sizes if isinstance(sizes, list) else [sizes]) if isinstance(size, int)}
        for name, sizes in listed.items()
    }


def _merged(*several: Sizes) -> Sizes:
    merged: defaultdict[str, set[int]] = defaultdict(set)
    for sizes in several:
        for name, some in sizes.items():
            merged[name] |= some
    return merged
