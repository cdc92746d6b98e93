"""A folder of pictures and depth that iw3 makes 3D videos of (nagadomi/nunif, iw3/export_config.py).

iw3 takes its `iw3_export.yml` for an input file: pictures in `rgb/`, their depth in `depth/`, in the order of their
names, 16-bit grey where white is near, and the sound. It plays frames at one rate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from dc_rt.formats import container_for
from dc_rt.media.audio import AudioCopy, codec_name
from dc_rt.media.png import write_png
from dc_rt.media.results import Result, ResultFrame
from dc_rt.media.write_frames import FramesWriter, PngWriter
from dc_rt.outputs import all_outputs, frame_name

CONFIG, RGB, DEPTH, AUDIO = "iw3_export.yml", "rgb", "depth", "audio"
"""Names in the folder that iw3 gives them too."""

# Names are compared as text, so that their numbers must be of one width.
_PADDING = 8
# FFmpeg's numbers (AVColorSpace, AVColorRange): the video that iw3 makes is BT.709 of the narrow range.
_BT709, _NARROW = 1, 1
_LARGEST_RATE = 1 << 20


class Iw3Folder:
    """Writes such a folder, a frame at a time; a context manager. The file that iw3 opens is written last."""

    def __init__(self, folder: Path, result: Result) -> None:
        """Creates the folder."""
        self._folder = folder
        self._result = result
        self._shots: list[str] = []
        self._num_written = 0
        self._last: ResultFrame | None = None
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opening:
            self._rgb = opening.enter_context(RgbWriter(folder / RGB, padding=_PADDING))
            self._depth = opening.enter_context(PngWriter(folder / DEPTH, padding=_PADDING))
            self._sound = opening.enter_context(AudioFile(folder / AUDIO, result.audio)) if result.audio else None
            self._writers = opening.pop_all()

    def write(self, frame: ResultFrame) -> None:
        """Append a frame: its picture, its depth normalised, and its sound.

        Frames before it that were lost are stood in for by the one before these: all others keep their times.
        """
        last = self._last or frame
        while self._num_written < frame.number:
            self._append(last)
        if frame.shot != last.shot:
            self._shots.append(frame_name(self._num_written, "", _PADDING))
        self._append(frame)
        if self._sound:
            self._sound.write(frame.audio)
        self._last = frame

    def _append(self, frame: ResultFrame) -> None:
        self._rgb.write(frame.image)
        self._depth.write(frame.depth)
        self._num_written += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for all files and raise the error of one; after an error of the caller's own, that one prevails."""
        self._writers.__exit__(kind, error, traceback)
        if kind is None:
            # As all results are called, wherever the video is by now; of names that are no text, the rest.
            name = self._folder.name.removesuffix(all_outputs()["iw3"].suffix).encode("utf-8", "ignore").decode()
            audio = self._sound.name if self._sound else None
            contents = config(name, self._result.timeline.fps, self._shots, audio)
            (self._folder / CONFIG).write_text(contents, encoding="utf-8", newline="\n")


class AudioFile:
    """A source's sound alone, copied: in MP4 where that holds it, else in Matroska; a context manager.

    Attributes:
        name: of the file; None for one without a packet, which is removed.
    """

    def __init__(self, path: Path, template: AudioStream) -> None:
        """Open the file.

        Args:
            path: without its suffix.
            template: the source's stream.
        """
        in_mp4 = container_for("h264", codec_name(template)) == "mp4"
        self._path = path.with_suffix(".m4a" if in_mp4 else ".mka")
        self.name: str | None = self._path.name
        # Matroska's files otherwise begin with a number drawn at random.
        kind, options = ("mp4", {}) if in_mp4 else ("matroska", {"fflags": "+bitexact"})
        self._container = av.open(f"file:{self._path}", "w", format=kind, options=options)
        self._copy = AudioCopy(self._container, template)
        self._is_empty = True

    def write(self, packets: Sequence[Packet]) -> None:
        """Append packets, whose times count from the first frame's."""
        self._copy.mux(packets)
        self._is_empty &= not packets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        if self._is_empty:
            self._path.unlink()
            self.name = None


class RgbWriter(FramesWriter):
    """8-bit RGB in PNG."""

    def __init__(self, folder: str | Path, padding: int = 4) -> None:
        super().__init__(folder, ".png", padding=padding)

    def _write(self, path: Path, depth: NDArray[Any], time: Fraction | None) -> None:
        write_png(path, depth)


def config(name: str, fps: Fraction, shots: Sequence[str] = (), audio: str | None = None) -> str:
    """What iw3's file of a video says, in YAML.

    Args:
        name: what iw3 calls the video that it makes.
        fps: frames a second.
        shots: names without their suffix of the pictures that begin another shot, where iw3 forgets what was before.
        audio: name of the file of sound, if there is one.
    """
    rate = fps.limit_denominator(_LARGEST_RATE)
    entries = {
        "type": "video",
        "basename": name,
        "fps": rate.numerator if rate.denominator == 1 else f"{rate.numerator}/{rate.denominator}",
        "rgb_dir": RGB,
        "depth_dir": DEPTH,
        **({"audio_file": audio} if audio else {}),
        # Depth is a disparity already; what iw3 does to its edges is left to its own options.
        "mapper": "none",
        "skip_mapper": False,
        "skip_edge_dilation": False,
        "source_color_range": _NARROW,
        "output_colorspace": _BT709,
        "user_data": {"export_options": {"depth_model": "DepthCrafter"}, "scene_boundary": ",".join(shots)},
    }
    # What JSON writes is YAML.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items())
