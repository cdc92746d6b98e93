"""A result read back from `NAME.json` and the files beside it: the depth as it was before it was written, and pictures.

Of all the outputs that hold the depth, the most exact one is read; its polarity and its gamma are undone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dc_rt.depth import normalised
from dc_rt.errors import UserError, option
from dc_rt.formats import COLORMAPS, CONTAINERS, EXR_PRESETS, VIDEO_CODECS
from dc_rt.geometry import FOCAL, Lens
from dc_rt.job.fingerprint import readable_hash
from dc_rt.job.plan import Plan, plan_video
from dc_rt.job.targets import text
from dc_rt.media import Timeline, probe, read_at_sizes
from dc_rt.media.convention import FAR_WHITE, NEAR_WHITE
from dc_rt.media.pipe import is_pipe
from dc_rt.media.raw import RawFile
from dc_rt.media.read import IMAGE_FOLDER_FPS
from dc_rt.media.read_depth import DepthFile, open_depth, open_pictures
from dc_rt.media.read_images import natural_key
from dc_rt.options import Source
from dc_rt.outputs import RAW, RAW_SUFFIX, is_frame_name
from dc_rt.parsing import parse_range

Depth = NDArray[np.float32]
Picture = NDArray[np.uint8]
T = TypeVar("T")

_RECORD = ".json"
_EXR_ERRORS = {"float": 0.0, "half": 2.0**-12}  # of numbers up to 1
# Beyond so many times the nearest distance a scene in metres has no shape any more, and infinity is no point.
_DEEPEST = 1000.0


@dataclass(frozen=True)
class Stored:
    """A result that is on disk.

    Attributes:
        path: of its record, `NAME.json`.
        name: what the results are called.
        record: all that it says.
        num_frames, height, width: of the depth that is read, in pixels as they are stored.
        times: when each frame is shown, in seconds from the first.
        seconds: that all of it takes.
        fps: frames a second, on average where the rate varies.
        pixel_aspect: width of a pixel to its height.
        depth_path: the file, or the folder, that depth is read from.
        depth_error: how far a stored number may be from what it was, by its bits: 0 for float32.
        is_lossy: whether it went through a lossy encoder, so that it may be farther.
        lens: of a result in metres (`dc-rt calibrate`), what makes its distances out of `depth`; else None.
    """

    path: Path
    name: str
    record: Mapping[str, Any]
    num_frames: int
    height: int
    width: int
    times: tuple[float, ...]
    seconds: float
    fps: float
    pixel_aspect: Fraction
    depth_path: Path
    depth_error: float
    is_lossy: bool
    lens: Lens | None
    _depth: Callable[[], Iterator[Depth]]
    _images: Callable[[], Iterator[Picture]]

    def depth(self) -> Iterator[Depth]:
        """Every frame's disparity: float32 [H,W] in [0,1], larger is nearer. Raises `UserError` for a damaged file."""
        return _counted(self._depth(), self.num_frames, self.depth_path)

    def images(self) -> Iterator[Picture]:
        """Every frame's picture, at the size of the depth: uint8 [H,W,3].

        Raises:
            UserError: no video of them was written, and the source is not there, or was changed.
        """
        return _counted(self._images(), self.num_frames, self.path)


@dataclass(frozen=True)
class _Held:
    """Depth in one output.

    Attributes:
        file: to be read.
        error, is_lossy: as of `Stored`.
        is_cut: to [0,1], as all that is stored in whole numbers is.
        preset: of its EXR files, "" elsewhere.
        is_as_estimated: of a raw file, whose polarity and curve nobody chose.
    """

    file: DepthFile
    error: float = 0.0
    is_lossy: bool = False
    is_cut: bool = False
    preset: str = ""
    is_as_estimated: bool = False


@dataclass(frozen=True)
class _Beside:
    """The files that a record lists, as far as they are there as they were left."""

    path: Path
    name: str
    record: Mapping[str, Any]

    def file(self, suffix: str) -> Path | None:
        """`NAME` and the suffix."""
        path = self.path.with_name(f"{self.name}{suffix}")
        return path if self._is_there(path) else None

    def videos(self, stem: str) -> list[Path]:
        """`NAME` and the stem, in whichever container; the newest first, where runs with and without sound left two."""
        found = [file for each in CONTAINERS if (file := self.file(f"{stem}.{each}"))]
        return sorted(found, key=lambda file: -file.stat().st_mtime_ns)

    def frames(self, suffix: str) -> list[Path]:
        """Of the folder `NAME`, in order."""
        folder = f"{text(self.name)}/"
        names = (key.removeprefix(folder) for key in self.record["files"] if key.startswith(folder))
        paths = (self.path.parent / self.name / name for name in names if is_frame_name(name, [suffix]))
        return sorted(filter(self._is_there, paths), key=natural_key)

    def _is_there(self, path: Path) -> bool:
        size = self.record["files"].get(text(path.relative_to(self.path.parent).as_posix()))
        return size is not None and path.is_file() and path.stat().st_size == size


def open_stored(path: str | Path) -> Stored:
    """Look at a result by its `NAME.json`.

    Raises:
        UserError: that is no record of a run, or no file that holds the depth is beside it as it was written.
    """
    path = Path(path)
    record = _read(path)
    beside = _Beside(path, path.name.removesuffix(_RECORD), record)
    held = _most_exact(beside)
    file, result = held.file, record["result"]
    if file.num_frames != result["num_frames"]:
        raise UserError(
            f"{file.path} has {file.num_frames} frames, and {path} says {result['num_frames']}; write it again."
        )
    with _as_a_run_writes_it(path):
        lens, undo = _undone(record, held)

    def depth() -> Iterator[Depth]:
        for frame, shot in zip(file.pictures(), _shot_of_each(record), strict=False):
            yield undo(frame, shot)

    # Of another size than the results' only where a raw file is all that there is, which is of the model's.
    aspect = _aspect(result) * Fraction(result["width"] * file.height, result["height"] * file.width)
    return Stored(
        path,
        beside.name,
        record,
        file.num_frames,
        file.height,
        file.width,
        tuple(map(float, record["times"])),
        float(result["seconds"]),
        float(result["fps"]),
        aspect,
        file.path,
        held.error,
        held.is_lossy,
        lens,
        depth,
        lambda: _pictures(beside, (file.height, file.width)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the NAME.json of a run.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no record of a run ({error}); give the NAME.json of one.") from error
    # Those that the first versions wrote say too little, and what others send may say anything.
    with _as_a_run_writes_it(path):
        if not _is_plausible(record):
            raise ValueError
    return dict(record)


@contextmanager
def _as_a_run_writes_it(path: Path) -> Iterator[None]:
    """While a record is read whose values may be missing, or of any type; raises `UserError` then."""
    try:
        yield
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no record of a run, or one of an earlier version, which says too little; run it again, or give "
            "the NAME.json of another."
        ) from error


def _is_plausible(record: Any) -> bool:
    """Whether a run can have written this; what is missing or of another type raises some error, or is false."""
    result, options, source, shots = record["result"], record["options"], record["source"], record["shots"]
    parse_range(options["range"])
    needed = options["values"], options["polarity"], options["keep"], source["path"], record["model"]["name"]
    known = (
        options["exr"] in EXR_PRESETS
        and options["exr_type"] in _EXR_ERRORS
        and options["depth_codec"] in VIDEO_CODECS
        and options["colormap"] in COLORMAPS
    )
    texts = [*needed, *options["outputs"], *source.get("notes", ())]
    ranges = [shot[end] for shot in (result, *shots) for end in ("depth_min", "depth_max")]
    numbers = [*record["times"], *ranges, result["seconds"], result["fps"], options["gamma"]]
    frames = [frame for shot in shots for frame in (shot["start_frame"], shot["end_frame"])]
    sizes = [result[name] for name in ("num_frames", "height", "width")]
    return (
        known
        and all(isinstance(each, str) for each in texts)
        and all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)
        and all(type(each) is int for each in (*frames, *sizes))
        and min(sizes) > 0
        and frames[0] == 0
        and frames[1:-1:2] == frames[2::2]
        and sorted(frames) == frames
        and frames[-1] == len(record["times"]) == result["num_frames"]
        and sorted(record["times"]) == record["times"]
        and min(result["fps"], options["gamma"], _aspect(result)) > 0
        and isinstance(record["files"], dict)
    )


def _aspect(result: Mapping[str, Any]) -> Fraction:
    """Of a pixel of the results: its width to its height."""
    return Fraction(str(result["sample_aspect_ratio"]).replace(":", "/"))


def _most_exact(beside: _Beside) -> _Held:
    """The depth of a result, where it was rounded least."""
    options = beside.record["options"]
    is_raw = options["values"] == "raw"
    held = [each for each in _held(beside) if each.is_as_estimated or not (is_raw and each.is_cut)]
    if not held:
        reason = f" (with {option('values', 'raw')} those in whole numbers hold too little)" if is_raw else ""
        raise UserError(
            f"No file that holds the depth of {beside.path} is beside it as it was written{reason}; put it back under "
            f"the name that it had, or run it again with "
            f"{option('outputs', 'depth.mp4,input.mp4,npz')}."
        )
    # Of files that are equally exact those of the results' own size.
    size = beside.record["result"]["height"], beside.record["result"]["width"]
    return min(held, key=lambda each: (each.is_lossy, each.error, (each.file.height, each.file.width) != size))


def _held(beside: _Beside) -> Iterator[_Held]:
    """All outputs of the run that hold its depth; those of earlier runs that it left there are another one's."""
    options = beside.record["options"]
    written = {*options["outputs"], options["keep"]}
    if "calibration" in beside.record:
        written = {"npz", "exr"}
    folder = beside.path.parent / beside.name
    if "npz" in written and (file := beside.file(".npz")):
        yield _Held(open_depth(file))
    if "exr" in written and (files := beside.frames(".exr")):
        yield _Held(open_pictures(folder, files), _EXR_ERRORS[options["exr_type"]], preset=options["exr"])
    if RAW in written and (file := beside.file(RAW_SUFFIX)):
        yield _Held(_open_raw(file), is_as_estimated=True)
    for name in ("tiff", "png"):
        if name in written and (files := beside.frames(f".{name}")):
            yield _Held(open_pictures(folder, files), 0.5 / 65535, is_cut=True)
    if "depth.mp4" in written:
        codec = VIDEO_CODECS[options["depth_codec"]]
        steps = 65535 if codec.bits == 16 else 219 << (codec.bits - 8)
        for file in beside.videos("_depth"):
            if file.suffix[1:] in codec.containers:
                yield _Held(open_depth(file), 0.5 / steps, codec.bits < 16, is_cut=True)
                return


def _open_raw(path: Path) -> DepthFile:
    with RawFile(path) as file:
        shape = file.num_frames, file.height, file.width

    def pictures() -> Iterator[Depth]:
        with RawFile(path) as file:
            yield from file.frames()

    return DepthFile(path, *shape, Timeline.even(shape[0], IMAGE_FOLDER_FPS), pictures)


def _undone(record: Mapping[str, Any], held: _Held) -> tuple[Lens | None, Callable[[Depth, Mapping[str, Any]], Depth]]:
    """What makes disparity in [0,1] of a stored frame and its shot; and the lens of a result in metres."""
    options = record["options"]
    if "calibration" in record:
        return _in_metres(record)
    if held.is_as_estimated:
        return None, lambda depth, shot: normalised(depth, _range_of(record, shot))
    polarity = options["polarity"]
    if polarity == "preset":
        polarity = FAR_WHITE if held.preset and EXR_PRESETS[held.preset].is_far_white else NEAR_WHITE
    gamma = np.float32(options["gamma"])

    def undo(depth: Depth, shot: Mapping[str, Any]) -> Depth:
        near = 1 - depth if polarity == FAR_WHITE else depth
        if gamma != 1:
            near = np.power(np.maximum(near, 0), gamma)
        if options["values"] == "raw":
            near = normalised(near, _range_of(record, shot))
        return np.asarray(np.clip(near, 0, 1), np.float32)

    return None, undo


def _in_metres(record: Mapping[str, Any]) -> tuple[Lens, Callable[[Depth, Mapping[str, Any]], Depth]]:
    """The same of a result of `dc-rt calibrate`, whose depth is z of 1/z = a d + b, with the range that it has."""
    calibration, result = record["calibration"], record["result"]
    shots = list(zip(calibration["shots"], record["shots"], strict=True))
    nearest = max(fit["a"] * shot["depth_max"] + fit["b"] for fit, shot in shots)
    farthest = max(min(fit["a"] * shot["depth_min"] + fit["b"] for fit, shot in shots), nearest / _DEEPEST)
    if not nearest > 0:
        raise UserError("Nothing of this calibration is in front of the camera; calibrate it again, with other points.")
    span = nearest - farthest or nearest
    focal = calibration["focal"][0] / result["width"] if calibration["focal"] else FOCAL
    lens = Lens(focal, 1 / nearest, 1 / (nearest - span) if nearest > span else _DEEPEST / nearest)
    return lens, lambda z, shot: np.asarray(np.clip((1 / z - (nearest - span)) / span, 0, 1), np.float32)


def _range_of(record: Mapping[str, Any], shot: Mapping[str, Any]) -> tuple[float, float]:
    """What became 0 and 1, of raw depth."""
    chosen: str = record["options"]["range"]
    if fixed := parse_range(chosen):
        return fixed
    of = shot if chosen == "shot" else record["result"]
    return of["depth_min"], of["depth_max"]


def _shot_of_each(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for shot in record["shots"]:
        yield from repeat(shot, shot["end_frame"] - shot["start_frame"])


def _pictures(beside: _Beside, size: tuple[int, int]) -> Iterator[Picture]:
    """Pictures from the video of them that the run wrote, or else from its source."""
    result = beside.record["result"]
    videos = beside.videos("_input") if "input.mp4" in beside.record["options"]["outputs"] else []
    if videos and "calibration" not in beside.record:
        # As they are stored: what the pixels' shape makes of them is for the viewer.
        video = probe(videos[0])
        frames = read_at_sizes(video, [size], limit=result["num_frames"])
    else:
        with _as_a_run_writes_it(beside.path):
            plan = _plan_of_source(beside)
        frames = read_at_sizes(plan.video, [size], plan.stride, plan.num_frames)
    with closing(frames):
        for _, (picture,) in frames:
            yield picture


def _plan_of_source(beside: _Beside) -> Plan:
    """The plan of the run, of its source; raises `UserError` where that is not there, or is another video now."""
    record = beside.record
    source = Path(record["source"]["path"])
    instead = f"run it again with {option('outputs', 'input.mp4')} among the outputs"
    if is_pipe(source):
        raise UserError(f"The pictures of {beside.path} came through a pipe and are gone; {instead}.")
    options = {name: value for name, value in record["options"].items() if name in vars(Source())}
    try:
        plan = plan_video(source, Source(**options | {"shots": "none"}))
        known = record.get("fingerprint", {}).get("video")
        found = {name: getattr(plan.video, name) for name in ("num_frames", "height", "width")}
        is_same = all(record["source"][name] == value for name, value in found.items())
        is_same = is_same and known in (None, readable_hash(plan.video))
    except UserError as error:
        raise UserError(
            f"The pictures of {beside.path} have to come from its source: {str(error).rstrip('.')}; or {instead}."
        ) from error
    if not is_same:
        raise UserError(f"{source} is not the video that {beside.path} was made from, or was changed since; {instead}.")
    return plan


def _counted(frames: Iterator[T], num_frames: int, path: Path) -> Iterator[T]:
    """As many as there are to be; raises `UserError` where there are fewer or more."""
    number = 0
    for number, frame in enumerate(frames, 1):
        if number > num_frames:
            break
        yield frame
    if number != num_frames:
        raise UserError(f"{path} is of {num_frames} frames, and others can be read now; run it again.")
