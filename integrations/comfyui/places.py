"""Where videos are found and results go: in ComfyUI's own folders, and what they are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePath, PureWindowsPath

from dc_rt.errors import UserError, option
from dc_rt.media.sequence import files_of, is_pattern
from dc_rt.options import Options, record
from dc_rt.serve.names import result_name as plain_name


def results_folder(output: Path, folder: str) -> Path:
    """The folder that results go to, `folder` under ComfyUI's output folder.

    Raises:
        UserError: it would be elsewhere.
    """
    asked = folder.strip()
    parts = *PurePath(asked).parts, *PureWindowsPath(asked).parts
    is_elsewhere = PurePath(asked).is_absolute() or PureWindowsPath(asked).anchor
    # What Windows takes for a path elsewhere, ".. " too, is refused everywhere, so that workflows mean the same.
    if is_elsewhere or "\0" in asked or not all(part.strip(". ") for part in parts):
        raise UserError(
            f"{option('folder')} must be a folder under ComfyUI's output folder, not {asked!r}; give a relative path "
            "without .., such as depth."
        )
    return output / asked


def result_name(video: Path, options: Options, engines: str | None) -> str:
    """What the results are called: after the video, and by what they are made of and how.

    ComfyUI remembers results by their paths: those of another video of that name, or with other options, must leave
    these alone. Of the same video with the same options they are found and left as they are, or resumed.
    """
    chosen = record(options.sampling, options.source) | options.outputs.manner
    what = json.dumps([str(video.absolute()), chosen, engines], sort_keys=True)
    return f"{plain_name(video.name)}_{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def stamp(video: Path) -> list[tuple[str, int, int]]:
    """What changes when a video, or an image of it, is written to: names, sizes and times. Raises `OSError`."""
    files: Iterable[Path] = [video]
    if is_pattern(video):
        files = files_of(video)
    elif video.is_dir():
        files = sorted(video.iterdir())
    return [(file.name, found.st_size, found.st_mtime_ns) for file in files if (found := file.stat())]


def written(files: Iterable[Path], suffix: str) -> Path:
    """Of a run's files the one whose name ends so, before the container's suffix."""
    return next(file for file in files if file.stem.endswith(suffix) and file.is_file())


def subfolder(file: Path, output: Path) -> str:
    """Where a file is under ComfyUI's output folder, as its page is told of it."""
    folder = file.parent.relative_to(output).as_posix()
    return "" if folder == "." else folder
