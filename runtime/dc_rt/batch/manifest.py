"""Lists of videos, with options a video: CSV, whose first line names the columns, or a JSON object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError

SUFFIXES = (".csv", ".jsonl", ".ndjson")

VIDEO, SAVE_FOLDER = "video", "save_folder"

# Spreadsheets write semicolons where numbers have a comma for their decimal point, and tabs when they are asked to.
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Line:
    """One of a manifest's.

    Attributes:
        number: of the line in its file, from 1 on.
        video: as it is written there: relative to the manifest's folder.
        save_folder: relative to that of the batch; None where it is not given.
        options: by name, as text or as JSON has them, for `Options.by_name`.
    """

    number: int
    video: str
    save_folder: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class BadLine:
    """One that says nothing that could be done: which, and in a sentence why not."""

    number: int
    sentence: str


def is_manifest(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() in SUFFIXES


def read_manifest(path: Path) -> Iterator[Line | BadLine]:
    """The lines of a manifest, in their order; empty ones are passed over.

    Raises:
        UserError: it cannot be read, is no text, or has no column `video`.
    """
    try:
        # Names that are no text are bytes there as they are in the file system.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = _csv_lines(path, file.readlines()) if path.suffix.lower() == ".csv" else _json_lines(file)
            yield from (_checked(*line) for line in lines)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.") from error


def _csv_lines(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Number and contents of each line, or what is wrong with it."""
    separator = next((each for each in _SEPARATORS if VIDEO in _columns(lines, each)), _SEPARATORS[0])
    columns = _columns(lines, separator)
    if VIDEO not in columns:
        raise UserError(
            f"{path} has no column {VIDEO}; save it as CSV in UTF-8, with a first line that names the columns, such as "
            f"{VIDEO},max_res."
        )
    if double := [column for column in columns if columns.count(column) > 1]:
        raise UserError(f"{path} has two columns that are called {double[0]!r}; leave one.")
    rows = csv.reader(lines, strict=True, delimiter=separator)
    next(rows)
    while True:
        first = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield first, f"it is no line of CSV ({error})"
            continue
        if cells is None:
            return
        if len(cells) > len(columns):
            yield first, f"it has {len(cells)} cells, and there are {len(columns)} columns"
        elif any(map(str.strip, cells)):
            yield first, {column: cell for column, cell in zip(columns, cells, strict=False) if cell.strip()}


def _columns(lines: Sequence[str], separator: str) -> list[str]:
    """Names of the columns, if they are separated so; empty where the first line is none of CSV."""
    try:
        return [column.strip() for column in next(csv.reader(lines, strict=True, delimiter=separator), [])]
    except csv.Error:
        return []


def _json_lines(file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "it is no JSON"
            continue
        if isinstance(found, dict):
            yield number, {key: value for key, value in found.items() if value is not None}
        else:
            yield number, 'it is no JSON object, such as {"video": "a.mp4"}'


def _checked(number: int, found: dict[str, Any] | str) -> Line | BadLine:
    if isinstance(found, str):
        return BadLine(number, f"{found}; correct it.")
    video, save_folder = found.pop(VIDEO, None), found.pop(SAVE_FOLDER, None)
    for name, value, is_needed in ((VIDEO, video, True), (SAVE_FOLDER, save_folder, False)):
        if (value is not None and not _is_path(value)) or (value is None and is_needed):
            shown = "" if value is None else f", and {value!r} is none"
            return BadLine(number, f"{name} must be a path{shown}; correct it.")
    return Line(number, video, save_folder, found)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value
