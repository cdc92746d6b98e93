"""Videos and images in, videos and depth files out: on real files throughout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import matplotlib
import numpy as np
import OpenEXR
import pytest

from dc_rt.errors import UserError
from dc_rt.media import (
    Damage,
    ExrWriter,
    NpzWriter,
    PngWriter,
    VideoWriter,
    frame_stride,
    inferno,
    output_size,
    probe,
    read_frames,
    to_uint8,
)
from dc_rt.options import DATASET_SIZES
from media_helpers import (
    count_decoded,
    decode,
    moving_gradient,
    real_clip,
    write_audio,
    write_clip,
    write_clip_with_sound,
    write_image,
    write_images,
    write_without_edges,
)

FASTSTART = {"movflags": "+faststart"}


def read_all(path: Path, height: int = 64, width: int = 64, **options: Any) -> list[np.ndarray]:
    return list(read_frames(path, height, width, **options))


def noise_clip(num_frames: int = 40) -> np.ndarray:
    """Frames that compress badly, so that a cut at any fraction of the file falls amid frames."""
    return np.random.default_rng(0).integers(0, 256, (num_frames, 96, 128, 3), dtype=np.uint8)


def write_all(writer: VideoWriter | NpzWriter | ExrWriter | PngWriter, frames: Iterable[np.ndarray]) -> None:
    with writer:
        for frame in frames:
            writer.write(frame)


# Sizes and strides


@pytest.mark.parametrize(
    ("source", "max_res", "expected"),
    [
        ((576, 1024), 1024, (576, 1024)),
        ((1080, 1920), 1024, (576, 1024)),
        ((1080, 1920), 640, (384, 640)),
        ((1920, 1080), 1024, (1024, 576)),
        ((272, 640), 1024, (256, 640)),
        ((144, 176), 1024, (128, 192)),
        ((480, 854), 1024, (512, 832)),
        ((1000, 1000), 1000, (1024, 1024)),  # max_res is no multiple of 64
        ((96, 96), 1024, (128, 128)),  # 1.5 rounds to even, as 2.5 does
        ((160, 160), 1024, (128, 128)),
        ((20, 640), 1024, (64, 640)),  # the original gives a height of 0
        ((100, 4000), 1024, (64, 1024)),
    ],
)
def test_size_follows_the_original_rule(source: tuple[int, int], max_res: int, expected: tuple[int, int]) -> None:
    assert output_size(*source, max_res=max_res) == expected


@pytest.mark.parametrize("dataset", DATASET_SIZES)
def test_dataset_sets_the_size(dataset: str) -> None:
    assert output_size(100, 100, max_res=64, dataset=dataset) == DATASET_SIZES[dataset]


def test_dataset_presets_are_the_papers() -> None:
    assert DATASET_SIZES == {
        "sintel": (448, 1024),
        "scannet": (640, 832),
        "KITTI": (384, 1280),
        "bonn": (512, 640),
        "NYUv2": (448, 640),
    }


def test_one_tile_is_the_smallest_size() -> None:
    assert output_size(576, 1024, max_res=64) == (64, 64)


@pytest.mark.parametrize(
    ("source_fps", "target_fps", "stride"),
    [(30, -1, 1), (30, 15, 2), (30000 / 1001, 15, 2), (24, 30, 1), (24, 60, 1), (25, 10, 2), (35, 10, 4), (60, 7, 9)],
)
def test_stride_is_the_rounded_ratio_of_rates(source_fps: float, target_fps: float, stride: int) -> None:
    assert frame_stride(source_fps, target_fps) == stride


# Reading video files


@pytest.mark.parametrize(
    ("name", "height", "width", "fps", "num_frames"),
    [
        ("bikes.mp4", 272, 640, Fraction(25), 250),
        ("bigbuckbunny.mp4", 720, 1280, Fraction(25), 132),
        # Stored as 176x144 with pixels of 128:117.
        ("carphone_pristine.mp4", 144, 193, Fraction(30000, 1001), 120),
    ],
)
def test_real_clip_is_described_as_it_decodes(
    name: str, height: int, width: int, fps: Fraction, num_frames: int
) -> None:
    info = probe(real_clip(name))
    assert (info.height, info.width, info.fps, info.num_frames) == (height, width, fps, num_frames)
    assert count_decoded(real_clip(name)) == num_frames


@pytest.mark.parametrize(
    ("name", "codec", "options", "container_options"),
    [
        ("h264.mp4", "libx264", {"bf": "3"}, {}),
        ("fragmented.mp4", "libx264", {"g": "9"}, {"movflags": "frag_keyframe+empty_moov"}),
        ("h264.mkv", "libx264", {"bf": "3"}, {}),
        ("live.mkv", "libx264", {}, {"live": "1"}),
        ("h264.ts", "libx264", {"bf": "3"}, {}),
        ("h264.flv", "libx264", {"bf": "3"}, {}),
        ("mpeg4.mp4", "mpeg4", {"bf": "2"}, {}),
        ("mpeg4.avi", "mpeg4", {"bf": "2"}, {}),
        ("mpeg2.mpg", "mpeg2video", {"bf": "2"}, {}),
        ("hidden_frames.webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}, {}),
    ],
)
def test_counted_frames_are_the_decoded_ones(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], container_options: dict[str, str]
) -> None:
    clip = write_clip(tmp_path / name, moving_gradient(37, 64, 96), 24, codec, options, container_options)
    assert probe(clip).num_frames == len(read_all(clip)) == count_decoded(clip) == 37
    assert probe(clip).fps == 24


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", moving_gradient(30, 64, 64))
    clip = write_without_edges(tmp_path / "edited.mp4", whole, hidden=7)
    assert probe(clip).num_frames == len(read_all(clip)) == 23


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_recording_starts_at_its_first_keyframe(tmp_path: Path, codec: str) -> None:
    whole = write_clip(tmp_path / "whole.ts", moving_gradient(60, 96, 128), codec=codec, options={"g": "10"})
    recording = tmp_path / "recording.ts"
    transport_packet = 188
    recording.write_bytes(whole.read_bytes()[40 * transport_packet :])
    assert probe(recording).num_frames == len(read_all(recording)) == 40


@pytest.mark.parametrize("declared", [10, 60, 5000])
@pytest.mark.parametrize(("suffix", "field"), [(".avi", (b"strh", 40, "little")), (".mp4", (b"stts", 12, "big"))])
def test_declared_frame_count_is_not_believed(
    tmp_path: Path, suffix: str, field: tuple[bytes, int, Literal["big", "little"]], declared: int
) -> None:
    clip = write_clip(tmp_path / f"clip{suffix}", moving_gradient(30, 64, 64), codec="mpeg4")
    content = bytearray(clip.read_bytes())
    chunk, offset, order = field
    at = content.index(chunk) + offset
    assert int.from_bytes(content[at : at + 4], order) == 30
    content[at : at + 4] = declared.to_bytes(4, order)
    clip.write_bytes(content)
    with av.open(str(clip)) as container:
        assert container.streams.video[0].frames == declared
    assert probe(clip).num_frames == 30


def test_frames_are_rgb_in_order_at_the_asked_size(tmp_path: Path) -> None:
    frames = moving_gradient(12, 96, 160)
    clip = write_clip(tmp_path / "clip.mp4", frames, options={"crf": "4"}, pixel_format="yuv444p")
    same_size = read_all(clip, 96, 160)
    assert all(frame.shape == (96, 160, 3) and frame.dtype == np.uint8 for frame in same_size)
    for expected, frame in zip(frames, same_size, strict=True):
        assert np.abs(frame.astype(int) - expected).mean() < 3
    halved = read_all(clip, 48, 80)
    block_means = frames.reshape(12, 48, 2, 80, 2, 3).mean((2, 4))
    assert np.abs(np.stack(halved) - block_means).mean() < 3


@pytest.mark.parametrize(
    ("stride", "limit"), [(1, None), (1, 4), (3, None), (3, 4), (3, 1), (3, 99), (50, None), (2, 0)]
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_stride_and_limit_choose_frames(tmp_path: Path, kind: str, stride: int, limit: int | None) -> None:
    frames = moving_gradient(13, 64, 64)
    video = write_clip(tmp_path / "clip.mp4", frames) if kind == "file" else write_images(tmp_path / "clip", frames)
    every = read_all(video)
    assert len(every) == 13
    chosen = list(read_frames(video, 64, 64, stride=stride, limit=limit))
    expected = every[::stride][:limit]
    assert len(chosen) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(chosen, expected, strict=True))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed in /proc on Linux only")
@pytest.mark.parametrize("end", ["closed", "exhausted"])
def test_file_is_closed_with_the_iterator(tmp_path: Path, end: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(10, 64, 64))
    frames = read_frames(clip, 64, 64)
    next(frames)
    assert clip in open_files()
    if end == "closed":
        frames.close()
    else:
        assert len(list(frames)) == 9
    assert clip not in open_files()


def open_files() -> set[Path]:
    return {fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}


def test_name_that_looks_like_a_protocol_or_a_pattern_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(3, 64, 64))
    clip.rename(tmp_path / "take:2 50%d.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe("take:2 50%d.mp4").num_frames == 3


# Bad video files


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*clip\.mp4"):
        probe(tmp_path / "clip.mp4")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UserError, match=r"clip\.mp4 is empty"):
        probe(tmp_path / "clip.mp4")


def test_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        probe(tmp_path / f"{'x' * 300}.mp4")


def test_device_is_no_video() -> None:
    with pytest.raises(UserError, match="neither a file nor a folder"):
        probe(os.devnull)


@pytest.mark.parametrize("name", ["noise.mp4", "notes.txt", "notes.mp4", "header.mp4", "header.mkv", "mpeg.ts"])
def test_file_that_is_no_video(tmp_path: Path, name: str) -> None:
    content = {
        "noise": np.random.default_rng(0).bytes(20000),
        "notes": b"A text file, which FFmpeg would draw as a terminal does.\n" * 50,
        "header": (b"\0\0\0\x20ftypisom" if name.endswith("mp4") else b"\x1a\x45\xdf\xa3\x01") + bytes(50),
        "mpeg": bytes(188 * 20),
    }[Path(name).stem]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"not a video|is cut short") as failure:
        probe(tmp_path / name)
    assert name in str(failure.value)
    with pytest.raises(UserError):
        read_all(tmp_path / name)


@pytest.mark.parametrize(("name", "cover"), [("sound.m4a", False), ("sound.mp3", False), ("sound.mp3", True)])
def test_file_without_a_video_stream(tmp_path: Path, name: str, cover: bool) -> None:
    audio = write_audio(tmp_path / name, cover=cover)
    with av.open(str(audio)) as container:
        assert bool(container.streams.video) == cover
    with pytest.raises(UserError, match="has no video stream"):
        probe(audio)
    with pytest.raises(UserError, match="has no video stream"):
        read_all(audio)


def test_video_stream_without_a_frame(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(UserError, match="without a frame"):
        probe(clip)


def test_format_without_a_decoder(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(5, 64, 64))
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(UserError, match="no decoder"):
        probe(clip)


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize(
    ("name", "codec", "container_options"),
    [
        ("index_at_the_end.mp4", "libx264", {}),
        ("index_first.mp4", "libx264", FASTSTART),
        ("mpeg4.mp4", "mpeg4", FASTSTART),
        ("matroska.mkv", "libx264", {}),
        ("webm.webm", "libvpx", {}),
        ("flash.flv", "libx264", {}),
    ],
)
def test_file_cut_short_is_found_by_probing(
    tmp_path: Path, name: str, codec: str, container_options: dict[str, str], fraction: float
) -> None:
    clip = write_clip(tmp_path / name, noise_clip(), 24, codec, {"g": "20"}, container_options)
    assert probe(clip).num_frames == 40
    os.truncate(clip, int(clip.stat().st_size * fraction))
    with pytest.raises(UserError, match=r"is cut short"):
        probe(clip)


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_cut_amid_a_frame_of_an_avi_file_is_found(tmp_path: Path, fraction: float) -> None:
    clip = write_clip(tmp_path / "clip.avi", noise_clip(), codec="mpeg4")
    assert probe(clip).num_frames == 40
    os.truncate(clip, int(clip.stat().st_size * fraction))
    with pytest.raises(UserError, match="is cut short"):
        probe(clip)


def test_cut_between_two_frames_is_found(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", noise_clip(), container_options=FASTSTART)
    with av.open(str(clip)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.pos is not None]
    os.truncate(clip, ends[25])
    with pytest.raises(UserError, match="is cut short"):
        probe(clip)


def test_recording_that_was_never_finished_is_found(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(10, 64, 64))
    os.truncate(clip, clip.read_bytes().index(b"moov") - 4)
    with pytest.raises(UserError, match="is cut short"):
        probe(clip)


def test_cut_that_takes_only_sound_is_found(tmp_path: Path) -> None:
    clip = write_clip_with_sound(tmp_path / "clip.mkv", moving_gradient(30, 64, 64))
    assert probe(clip).num_frames == 30
    os.truncate(clip, clip.stat().st_size - 500)
    with pytest.raises(UserError, match="is cut short"):
        probe(clip)


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_real_clip_cut_short_is_found(tmp_path: Path, name: str) -> None:
    clip = tmp_path / name
    content = real_clip(name).read_bytes()
    clip.write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(UserError, match="is cut short"):
        probe(clip)


@pytest.mark.parametrize("junk", [b"\0" * 1000, b"camera serial 12345", b"\xff" * 50])
def test_junk_behind_a_whole_file_is_no_truncation(tmp_path: Path, junk: bytes) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(10, 64, 64))
    clip.write_bytes(clip.read_bytes() + junk)
    assert probe(clip).num_frames == 10


def damage(clip: Path, first: float, last: float) -> None:
    """Overwrite a part of an MP4 file's frames, given by fractions of them."""
    content = bytearray(clip.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    a, b = start + int((end - start) * first), start + int((end - start) * last)
    content[a:b] = b"\xff" * (b - a)
    clip.write_bytes(content)


def test_file_of_which_nothing_decodes_is_found_by_probing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", noise_clip())
    damage(clip, 0, 1)
    with pytest.raises(UserError, match="decoded"):
        probe(clip)


def test_damage_amid_the_file_is_counted_and_reading_goes_on(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", noise_clip(), options={"g": "1", "bf": "0"})
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(whole.read_bytes())
    damage(clip, 0.5, 0.6)
    found = Damage()
    frames = list(read_frames(clip, 64, 64, damage=found))
    expected = list(read_frames(whole, 64, 64))
    assert found.num_errors > 0
    # Neither lost unseen nor doubled: what is not there was counted, and what is there comes in order.
    assert len(frames) == len(expected) - found.num_errors
    positions = [next((i for i, e in enumerate(expected) if np.array_equal(e, frame)), None) for frame in frames]
    sound = [position for position in positions if position is not None]
    assert sound == sorted(set(sound))
    assert len(sound) >= len(expected) - 5
    assert sound[0] == 0
    assert sound[-1] == len(expected) - 1
    undamaged = Damage()
    list(read_frames(whole, 64, 64, damage=undamaged))
    assert undamaged == Damage(num_frames=40)


# Folders of images


def test_images_are_read_in_natural_order(tmp_path: Path) -> None:
    shades = np.arange(0, 120, 10, dtype=np.uint8)
    folder = write_images(tmp_path / "images", [np.full((64, 64, 3), shade, np.uint8) for shade in shades])
    info = probe(folder)
    assert (info.height, info.width, info.fps, info.num_frames) == (64, 64, Fraction(24), 12)
    assert [frame[0, 0, 0] for frame in read_all(folder)] == shades.tolist()


def test_only_images_of_the_folder_are_read(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", moving_gradient(3, 64, 64), "{}.PNG")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._0.png").write_bytes(b"a file manager's")
    write_images(folder / "more.png", moving_gradient(2, 64, 64))
    assert probe(folder).num_frames == len(read_all(folder)) == 3


def test_image_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    frames = moving_gradient(3, 64, 64)
    folder = write_images(tmp_path / "images", frames[:2])
    write_image(folder / "frame%d.png", frames[2], "png", "rgb24")
    assert np.array_equal(read_all(folder), frames)


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format", "tolerance"),
    [
        ("png", "png", "rgb24", 0),
        ("png", "png", "rgba", 0),
        ("tif", "tiff", "rgb24", 0),
        ("tiff", "tiff", "rgb24", 0),
        ("bmp", "bmp", "bgr24", 0),
        ("jpg", "mjpeg", "yuvj444p", 2),
        ("jpeg", "mjpeg", "yuvj420p", 4),
        ("webp", "libwebp", "yuv420p", 4),
    ],
)
def test_image_formats_keep_their_colours(
    tmp_path: Path, suffix: str, codec: str, pixel_format: str, tolerance: float
) -> None:
    (tmp_path / "images").mkdir()
    image = moving_gradient(1, 64, 96)[0]
    image[:8] = 255
    image[-8:] = 0
    write_image(tmp_path / "images" / f"0.{suffix}", image, codec, pixel_format)
    (frame,) = read_all(tmp_path / "images", 64, 96)
    assert np.abs(frame.astype(int) - image).mean() <= tolerance
    assert frame[:4].mean() >= 255 - tolerance
    assert frame[-4:].mean() <= tolerance


@pytest.mark.parametrize("pixel_format", ["gray16be", "rgb48be"])
def test_16_bit_png_is_reduced_to_8(tmp_path: Path, pixel_format: str) -> None:
    (tmp_path / "images").mkdir()
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    image = ramp if pixel_format == "gray16be" else np.stack([ramp] * 3, -1)
    write_image(tmp_path / "images" / "0.png", image, "png", pixel_format)
    (frame,) = read_all(tmp_path / "images")
    assert np.abs(frame.astype(int) - (ramp >> 8)[..., None]).max() <= 1


@pytest.mark.parametrize("content", [[], ["notes.txt"]])
def test_folder_without_images(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_text("not an image")
    with pytest.raises(UserError, match="no images in the folder"):
        probe(tmp_path)
    with pytest.raises(UserError, match="no images in the folder"):
        read_all(tmp_path)


def test_image_of_another_size_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", moving_gradient(11, 64, 64))
    write_image(folder / "frame2.png", moving_gradient(1, 64, 96)[0], "png", "rgb24")
    with pytest.raises(UserError, match=r"frame2\.png is 96x64 .* frame0\.png is 64x64"):
        probe(folder)


def test_broken_image_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", moving_gradient(4, 64, 64))
    os.truncate(folder / "frame2.png", 300)
    (folder / "frame3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"frame2\.png is not an image"):
        probe(folder)
    with pytest.raises(UserError, match=r"frame2\.png is not an image"):
        read_all(folder)
    (folder / "frame2.png").unlink()
    with pytest.raises(UserError, match=r"frame3\.png is not an image"):
        probe(folder)


# Writing


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(25, 3), Fraction(1000003, 41666)])
def test_mp4_has_every_frame_at_the_exact_rate(tmp_path: Path, fps: Fraction) -> None:
    path = tmp_path / "clip.partial"
    write_all(VideoWriter(path, fps, 64, 96), moving_gradient(31, 64, 96))
    info = probe(path)
    assert (info.height, info.width, info.fps, info.num_frames) == (64, 96, fps, 31)
    with av.open(str(path)) as container:
        times = [(frame.pts or 0) * (frame.time_base or 0) for frame in container.decode(video=0)]
    assert times == [i / fps for i in range(31)]


def test_mp4_colours_come_back(tmp_path: Path) -> None:
    frames = np.empty((6, 64, 64, 3), np.uint8)
    frames[:] = (
        np.array([[200, 30, 60], [20, 220, 40], [30, 60, 240], [255, 255, 255]])[:, None].repeat(16, 1).reshape(64, 3)
    )
    write_all(VideoWriter(tmp_path / "clip.mp4", Fraction(24), 64, 64), frames)
    error = np.abs(decode(tmp_path / "clip.mp4").astype(int) - frames)
    # Between two bands, halved chroma blurs columns.
    assert error.reshape(6, 64, 4, 16, 3)[:, :, :, 4:12].max() <= 4
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        bt709, limited = 1, 1
        assert (stream.colorspace, stream.color_primaries, stream.color_trc) == (bt709, bt709, bt709)
        assert (stream.color_range, stream.pix_fmt) == (limited, "yuv420p")


def test_mp4_of_grey_frames_keeps_black_white_and_steps(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.repeat(np.arange(256, dtype=np.uint8), 2), (5, 64, 512))
    write_all(VideoWriter(tmp_path / "clip.mp4", Fraction(24), 64, 512), ramp)
    decoded = decode(tmp_path / "clip.mp4").astype(int)
    assert np.abs(decoded - ramp[..., None]).mean() < 1
    assert decoded[:, :, 0].max() <= 2
    assert decoded[:, :, -1].min() >= 253


def test_mp4_starts_with_its_index(tmp_path: Path) -> None:
    write_all(VideoWriter(tmp_path / "clip.mp4", Fraction(24), 64, 64), moving_gradient(5, 64, 64))
    content = (tmp_path / "clip.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Resumed runs are compared bit for bit."""
    contents = set()
    for size in ((64, 64), (192, 320)):
        frames = moving_gradient(30, *size, seed=5)
        for _ in range(8):
            write_all(VideoWriter(tmp_path / "clip.mp4", Fraction(24), *size), frames)
            contents.add((tmp_path / "clip.mp4").read_bytes())
    assert len(contents) == 2


def test_mp4_writer_needs_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with pytest.raises(UserError, match=r"no H\.264 encoder"):
        VideoWriter(tmp_path / "clip.mp4", Fraction(24), 64, 64)
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed in /proc on Linux only")
@pytest.mark.parametrize("kind", ["mp4", "npz"])
def test_error_amid_the_work_closes_the_file_and_comes_through(tmp_path: Path, kind: str) -> None:
    def fail_after_two_frames() -> Iterator[np.ndarray]:
        yield from moving_gradient(2, 64, 64)[..., 0].astype(np.float32 if kind == "npz" else np.uint8)
        raise ZeroDivisionError

    path = tmp_path / f"result.{kind}"
    writer = VideoWriter(path, Fraction(24), 64, 64) if kind == "mp4" else NpzWriter(path, (9, 64, 64))
    with pytest.raises(ZeroDivisionError):
        write_all(writer, fail_after_two_frames())
    assert path.exists()
    assert path not in open_files()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is simulated by a device of Linux")
def test_full_disk_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "frame_0000.exr").symlink_to("/dev/full")
    (tmp_path / "frame_0000.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_all(VideoWriter("/dev/full", Fraction(24), 96, 128), noise_clip(30))
    with pytest.raises(OSError, match="No space left"):
        write_all(ExrWriter(tmp_path), random_depth())
    with pytest.raises(OSError, match="No space left"):
        write_all(PngWriter(tmp_path), random_depth())


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_all(VideoWriter(tmp_path / "no" / "a.mp4", Fraction(24), 64, 64), moving_gradient(3, 64, 64))
    with pytest.raises(FileNotFoundError):
        NpzWriter(tmp_path / "no" / "a.npz", (1, 64, 64))


def random_depth(num_frames: int = 3) -> np.ndarray:
    depth = np.random.default_rng(1).random((num_frames, 64, 96), dtype=np.float32)
    depth[0, 0, :2] = 0, 1
    return depth


def test_npz_reads_back_equal(tmp_path: Path) -> None:
    depth = random_depth()
    with NpzWriter(tmp_path / "depth.partial", depth.shape) as writer:
        for frame in depth[..., ::-1]:
            writer.write(frame[..., ::-1])  # a view that is not contiguous
    with np.load(tmp_path / "depth.partial") as file:
        assert file.files == ["depth"]
        assert file["depth"].dtype == np.float32
        assert np.array_equal(file["depth"], depth)


def test_npz_is_compressed(tmp_path: Path) -> None:
    with NpzWriter(tmp_path / "depth.npz", (10, 64, 64)) as writer:
        for _ in range(10):
            writer.write(np.ones((64, 64), np.float32))
    assert (tmp_path / "depth.npz").stat().st_size < 10 * 64 * 64 * 4 / 20


@pytest.mark.parametrize(
    ("num_announced", "num_rows", "message"),
    [(4, 64, "3 frames were written of 4"), (2, 64, "frame 2 .* does not fit"), (3, 32, "frame 0 .* does not fit")],
)
def test_npz_holds_exactly_the_announced_frames(
    tmp_path: Path, num_announced: int, num_rows: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_all(NpzWriter(tmp_path / "depth.npz", (num_announced, 64, 96)), random_depth(3)[:, :num_rows])


def test_exr_reads_back_equal(tmp_path: Path) -> None:
    depth = random_depth()
    write_all(ExrWriter(tmp_path / "new" / "folder"), depth)
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["frame_0000.exr", "frame_0001.exr", "frame_0002.exr"]
    for file, frame in zip(files, depth, strict=True):
        channels = OpenEXR.File(str(file)).channels()
        assert list(channels) == ["Z"]
        assert channels["Z"].pixels.dtype == np.float32
        assert np.array_equal(channels["Z"].pixels, frame)


def test_png_reads_back_within_half_a_step(tmp_path: Path) -> None:
    depth = random_depth()
    write_all(PngWriter(tmp_path / "folder"), depth)
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["frame_0000.png", "frame_0001.png", "frame_0002.png"]
    for file, frame in zip(files, depth, strict=True):
        with av.open(str(file)) as container:
            stored = next(container.decode(video=0))
        assert stored.format.name == "gray16be"
        assert np.array_equal(stored.to_ndarray(), np.round(frame * 65535))


# Colours


def test_inferno_is_matplotlibs() -> None:
    depth = np.linspace(0, 1, 100_000, dtype=np.float32).reshape(100, 1000)
    table = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    expected = table[(depth * 255).astype(int)]
    assert inferno(depth).dtype == np.uint8
    assert np.array_equal(inferno(depth), expected)


def test_inferno_keeps_to_its_ends_outside_the_range() -> None:
    low, high = inferno(np.array([-0.5, 1.5], np.float32))
    assert np.array_equal(low, inferno(np.zeros(1, np.float32))[0])
    assert np.array_equal(high, inferno(np.ones(1, np.float32))[0])


def test_grey_is_truncated_not_rounded() -> None:
    assert to_uint8(np.array([0, 0.9999 / 255, 1.5 / 255, 254.9 / 255, 1], np.float32)).tolist() == [0, 0, 1, 254, 255]
