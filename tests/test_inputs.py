"""Videos as people have them: turned, uneven, deep, dark, woven, transparent, odd."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dc_rt import UserError
from dc_rt.media import VideoInfo, output_size, probe, read_frames
from media_helpers import moving_gradient, write_clip, write_images

# ISO/IEC 14496-12: the matrix (a, b, c, d) of a track header takes a point (x, y) to (a x + c y, b x + d y).
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turn(clip: Path, clockwise: int) -> Path:
    """Have the track header ask for a turn, as a phone does that was held upright."""
    contents = bytearray(clip.read_bytes())
    a, b, c, d = (value << 16 for value in TURNS[clockwise])
    matrix = contents.index(b"tkhd") + 4 + 40  # version 0: behind times, identifiers, layer and volume
    contents[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    clip.write_bytes(contents)
    return clip


def write_stream(
    path: Path, frames: Iterable[av.VideoFrame], codec: str, pixel_format: str, options: dict[str, str] | None = None
) -> Path:
    """Encode 64x64 frames that are not plain RGB, or with an encoder's own options."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.height = stream.width = 64
        stream.pix_fmt = pixel_format
        for frame in frames:
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode(None))
    return path


def pictures(clip: NDArray[np.uint8]) -> list[av.VideoFrame]:
    return [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in clip]


def read_all(info: VideoInfo) -> NDArray[np.uint8]:
    return np.stack(list(read_frames(info.path, info.height, info.width)))


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_a_turned_video_is_read_as_it_is_shown(tmp_path: Path, clockwise: int) -> None:
    frames = moving_gradient(4, 64, 128, seed=2)
    frames[:, :32, :64] = (250, 20, 20)  # a corner that is not like the others
    info = probe(turn(write_clip(tmp_path / "phone.mp4", frames, pixel_format="yuv444p"), clockwise))
    expected = np.rot90(frames, -(clockwise // 90), axes=(1, 2))
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.abs(read_all(info).astype(int) - expected).mean() < 4


def test_a_turned_video_is_resized_to_the_size_that_is_asked_for(tmp_path: Path) -> None:
    clip = turn(write_clip(tmp_path / "phone.mp4", moving_gradient(2, 128, 256)), 90)
    info = probe(clip)
    size = output_size(info.height, info.width, max_res=128)
    assert size == (128, 64)
    assert next(iter(read_frames(clip, *size))).shape == (128, 64, 3)


def test_an_uneven_frame_rate_is_told_and_loses_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    frames = moving_gradient(12, 64, 64)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.height = stream.width = 64
        times = np.cumsum([33, 33, 66, 33, 100, 33, 33, 33, 50, 33, 33, 33])
        for picture, time in zip(pictures(frames), times, strict=True):
            picture.pts, picture.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    info = probe(path)
    assert info.num_frames == 12
    assert any(note.startswith("variable frame rate (33 to 100 ms") for note in info.notes)
    assert np.abs(read_all(info).astype(int) - frames).mean() < 5


@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001), 50])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_even_frame_rate_is_not_called_uneven(tmp_path: Path, fps: Fraction | int, suffix: str) -> None:
    clip = write_clip(tmp_path / f"clip{suffix}", moving_gradient(40, 64, 64), fps, options={"bf": "2"})
    assert probe(clip).notes == ()


def test_ten_bit_video_is_read_like_eight_bit(tmp_path: Path) -> None:
    frames = moving_gradient(3, 64, 128)
    info = probe(write_clip(tmp_path / "deep.mp4", frames, pixel_format="yuv420p10le"))
    assert info.notes == ()
    assert np.abs(read_all(info).astype(int) - frames).mean() < 5


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_high_dynamic_range_is_told(tmp_path: Path, transfer: str, name: str) -> None:
    options = {"x264-params": f"transfer={transfer}"}
    clip = write_stream(tmp_path / "hdr.mp4", pictures(moving_gradient(3, 64, 64)), "libx264", "yuv420p10le", options)
    assert probe(clip).notes == (f"high dynamic range ({name}), read without tone mapping",)


def test_interlaced_video_is_told(tmp_path: Path) -> None:
    options = {"x264-params": "interlaced=1"}
    clip = write_stream(tmp_path / "tv.mp4", pictures(moving_gradient(6, 64, 64)), "libx264", "yuv420p", options)
    info = probe(clip)
    assert info.notes == ("interlaced, read without deinterlacing",)
    assert len(read_all(info)) == info.num_frames == 6


def test_transparency_is_told(tmp_path: Path) -> None:
    rgb = moving_gradient(3, 64, 64)
    rgba = np.concatenate([rgb, np.full((3, 64, 64, 1), 128, np.uint8)], axis=-1)
    frames = [av.VideoFrame.from_ndarray(frame, format="rgba") for frame in rgba]
    info = probe(write_stream(tmp_path / "layer.mov", frames, "png", "rgba"))
    assert info.notes == ("transparent, read without its alpha channel",)
    np.testing.assert_array_equal(read_all(info), rgb)


@pytest.mark.parametrize("size", [(97, 131), (1, 1), (33, 500)])
def test_odd_sizes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = write_clip(tmp_path / "odd.mkv", moving_gradient(2, *size), codec="ffv1", pixel_format="bgr0")
    info = probe(clip)
    assert (info.height, info.width) == size
    assert next(iter(read_frames(clip, *output_size(*size)))).shape == (*output_size(*size), 3)


def test_reading_from_a_frame_on_gives_the_same_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(20, 64, 64), options={"bf": "3"})
    whole = np.stack(list(read_frames(clip, 64, 64, stride=2, limit=9)))
    for start in (0, 1, 5, 8):
        np.testing.assert_array_equal(np.stack(list(read_frames(clip, 64, 64, 2, 9, start))), whole[start:])
    assert list(read_frames(clip, 64, 64, 2, 9, 9)) == []


def test_a_picture_that_no_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged header can ask for one; the limit is lowered here, as a file of that size takes minutes to make."""
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(2, 128, 128))
    assert probe(clip).num_frames == 2
    monkeypatch.setattr("dc_rt.media.read.MAX_PIXELS", 100 * 100)
    with pytest.raises(UserError, match=r"128x128 pixels, and at most 10,000 are read; make them smaller"):
        probe(clip)
    monkeypatch.setattr("dc_rt.media.read_images.MAX_PIXELS", 100 * 100)
    with pytest.raises(UserError, match=r"frame0\.png has 128x128 pixels, and at most 10,000 are read"):
        probe(write_images(tmp_path / "images", moving_gradient(1, 128, 128)))


def test_metadata_that_is_not_unicode_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "a title"
        stream = container.add_stream("libx264", rate=24)
        stream.height = stream.width = 64
        container.mux(stream.encode(pictures(moving_gradient(1, 64, 64))[0]))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"a title", b"\xff\xfe\xb2 tle"))
    assert probe(path).num_frames == 1
