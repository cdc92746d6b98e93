"""Lists of shots that editors and detectors write: frame numbers as CSV, and CMX 3600 edit decision lists (EDL)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from dc_rt.errors import UserError, option
from dc_rt.media.timeline import Timeline

# A film of a thousand shots takes 100 KB; what is much larger is something else, such as the video itself.
_MOST_BYTES = 1 << 24

_COLUMNS = ("start frame", "start_frame", "frame", "frames", "frame number", "frame_number", "start", "cut", "cuts")
# PySceneDetect's `list-scenes` counts from 1 in the column of this name, and has this one beside it.
_START, _PYSCENEDETECT = "start frame", "scene number"

_TIME_CODE = r"\d{1,2}:\d\d:\d\d[:;.,]\d\d"
# Number, reel, track, transition and its length; source in and out, record in and out.
_EVENT = re.compile(
    r"\s*\d+\s+\S+\s+(?P<track>\S+)\s+[CDW].*\s"
    rf"{_TIME_CODE}\s+{_TIME_CODE}\s+(?P<record_in>{_TIME_CODE})\s+{_TIME_CODE}\s*"
)


def read_starts(path: Path, timeline: Timeline) -> tuple[int, ...]:
    """The frames of a video that its shots begin with, 0 first, as a file lists them.

    An .edl is read as CMX 3600: shots begin at the events' record-in points, and the first event's is frame 0. Every
    other file is read as CSV: a number a line, a line of numbers, or a column that is called "frame", "start frame" or
    the like; PySceneDetect's list of scenes is one, and its frames, which it counts from 1, are taken from 0.

    Args:
        path: of the list.
        timeline: of the video.

    Raises:
        UserError: the list cannot be read, or is not one of this video.
    """
    text = _text_of(path)
    starts = list(_edl_starts(text, path, timeline) if path.suffix.lower() == ".edl" else _csv_starts(text, path))
    if not starts:
        raise _wrong(path, "lists no shot", "give one with a frame number a line, or an EDL with events of video")
    for number, following in pairwise(starts):
        if following <= number:
            raise _wrong(path, f"has frame {following} after frame {number}", "sort it, and name no frame twice")
    if 0 < len(timeline) <= starts[-1]:  # 0 of a pipe, whose end has not come
        end = f"the video's {len(timeline)} frames end with {len(timeline) - 1}"
        what = f"has a shot from frame {starts[-1]} on, and {end}"
        raise _wrong(path, what, "give the list of this video, counted from 0")
    return tuple(starts) if starts[0] == 0 else (0, *starts)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            contents = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"The list of {option('shots', path)} cannot be read ({error.strerror}); give none, auto, or a CSV or EDL."
        ) from error
    try:
        if len(contents) <= _MOST_BYTES and b"\0" not in contents:
            return contents.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise _something_else(path)


def _csv_starts(text: str, path: Path) -> Iterator[int]:
    rows = _rows_of(text, path)
    header, column, counts_from = _header_of(rows)
    rows = rows[header:]
    if not header and len(rows) == 1:  # all in a line
        rows = [(rows[0][0], [cell]) for cell in rows[0][1] if cell]
    elif not header and any(len(row) > 1 for _, row in rows):
        raise _wrong(path, "has several columns, of which none is called frame", "name the one that has the starts")
    for line, row in rows:
        cell = row[column] if column < len(row) else ""
        if not re.fullmatch(r"[0-9]{1,18}", cell) or int(cell) < counts_from:
            mend = f"give whole numbers from {counts_from} on"
            raise _wrong(path, f"has no frame number in line {line} ({cell!r})", mend)
        yield int(cell) - counts_from


def _rows_of(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """The number and the cells of every line that has something in it."""
    delimiter = next((each for each in "\t;," if each in text), ",")
    lines = csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines]
    except csv.Error as error:
        raise _something_else(path) from error
    return [(line, row) for line, row in rows if any(row)]


def _header_of(rows: list[tuple[int, list[str]]]) -> tuple[int, int, int]:
    """How many rows the header takes, which column has the frames, and what these are counted from."""
    for index, (_, row) in enumerate(rows[:2]):  # PySceneDetect's is the second row
        names = [cell.lower() for cell in row]
        if known := next((name for name in _COLUMNS if name in names), None):
            return index + 1, names.index(known), int(known == _START and _PYSCENEDETECT in names)
    in_other_words = len(rows) > 1 and len(rows[0][1]) == 1 and not re.search(r"\d", rows[0][1][0])
    return int(in_other_words), 0, 0


def _edl_starts(text: str, path: Path, timeline: Timeline) -> Iterator[int]:
    """Frames whose time a record-in point is, or the first ones after it."""
    nominal = max(round(timeline.fps), 1)
    if not timeline.is_constant or abs(timeline.fps / nominal - 1) > Fraction(2, 1000):
        rate = f"{float(timeline.fps):.4g} frames/s" if timeline.is_constant else "a variable frame rate"
        raise _wrong(path, f"tells frames by time code, and the video has {rate}", "give a CSV of frame numbers")
    first = last = None
    for line, record_in, drops in _events(text):
        frames = _frames_of(record_in, nominal, drops)
        if frames is None or (drops and timeline.fps.denominator == 1):
            what = f"has a time code{' of drop frame' if drops else ''} in line {line} ({record_in})"
            rate = f"{float(timeline.fps):.4g} frames/s"
            raise _wrong(path, f"{what} that there is none of at {rate}", "export it at the video's rate")
        first = frames if first is None else first
        if frames != last:  # the two lines of a dissolve begin at one time
            ticks = Fraction(frames - first) / timeline.fps / timeline.tick
            yield int(np.searchsorted(timeline.times, float(ticks))) if ticks < timeline.end else frames - first
        last = frames


def _events(text: str) -> Iterator[tuple[int, str, bool]]:
    """Line, record-in point and whether that is of drop frame, of every event that has video."""
    drops = False
    for line, words in enumerate(text.splitlines(), 1):
        if words.strip().upper().startswith("FCM:"):
            drops = "NON" not in words.upper()
        event = _EVENT.fullmatch(words)
        if event and re.match("B|.*V", event["track"].upper()):
            yield line, event["record_in"], drops or event["record_in"][-3] in ";,"


def _frames_of(time_code: str, nominal: int, drops: bool) -> int | None:
    """The number of a time code (SMPTE 12M) at a rate of about `nominal` frames a second; None where there is none.

    Drop frame leaves out the first two numbers, at 60 four, of every minute but each tenth.
    """
    hours, minutes, seconds, frames = map(int, re.split("[:;.,]", time_code))
    dropped = nominal // 15 if drops else 0
    missing = seconds == 0 and minutes % 10 != 0 and frames < dropped
    if minutes > 59 or seconds > 59 or frames >= nominal or missing or (drops and nominal % 30):
        return None
    total_minutes = 60 * hours + minutes
    return (60 * total_minutes + seconds) * nominal + frames - dropped * (total_minutes - total_minutes // 10)


def taken_starts(starts: Iterable[int], stride: int, num_frames: int) -> tuple[int, ...]:
    """The shots' first frames among every `stride`th of the video's, the first `num_frames` of them; a shot that no
    such frame is in is left out."""
    taken = dict.fromkeys(-(-start // stride) for start in starts)
    return tuple(start for start in taken if start < num_frames)


def _something_else(path: Path) -> UserError:
    return _wrong(path, "is no list of shots but something else", "give a CSV of frame numbers or an EDL, in UTF-8")


def _wrong(path: Path, what: str, mend: str) -> UserError:
    return UserError(f"The list of {option('shots', path)} {what}; {mend}.")
