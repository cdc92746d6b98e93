"""Sequences of images as film programs name and write them: patterns, ranges, gaps, EXR, DPX, TIFF, AVIF."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenEXR
import pytest
from numpy.typing import NDArray

from command_helpers import assert_refused, contents, dc_rt
from dc_rt import DepthCrafter, Job, Outputs, Sampling, Source, UserError
from dc_rt.media import VideoInfo, probe, read_frames
from dc_rt.media.sequence import sequence_name
from media_helpers import decode, moving_gradient, write_clip, write_image, write_images

FAST = ("--num-denoising-steps", "1", "--max-res", "64", "--window-size", "8", "--overlap", "2")


def write_exr(path: Path, channels: dict[str, Any], **header: Any) -> Path:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage} | header, channels).write(
        str(path)
    )
    return path


def planes(rgb: NDArray[Any], layer: str = "") -> dict[str, NDArray[Any]]:
    return {f"{layer}{name}": np.ascontiguousarray(rgb[..., i]) for i, name in enumerate("RGB")}


def linear(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Light of sRGB values, IEC 61966-2-1."""
    values = frames.astype(np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def read_all(info: VideoInfo) -> NDArray[np.uint8]:
    return np.stack(list(read_frames(info, info.height, info.width)))


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Frames 1001 to 1012 without 1004, and 1008 to 1010, which are told by their red."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for number in (1001, 1002, 1003, 1005, 1006, 1007, 1011, 1012):
        write_image(folder / f"shot.{number}.png", np.full((64, 96, 3), number - 1000, np.uint8), "png", "rgb24")
    return folder


def reds(info: VideoInfo) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in read_all(info)]


@pytest.mark.parametrize("fps", [0.01, 1e5])
def test_the_slowest_and_the_fastest_rate_of_images_are_written(
    bundled: DepthCrafter, tmp_path: Path, fps: float
) -> None:
    images = write_images(tmp_path / "images", moving_gradient(3, 64, 64))
    outputs = Outputs(("depth.mp4", "exr", "iw3"), depth_codec="hevc")
    sampling, source = Sampling(steps=1, window_size=3, overlap=1), Source(max_res=64, fps=fps)
    Job(bundled, images, sampling, source, outputs, tmp_path / "out").run()
    assert len(decode(tmp_path / "out" / "images_depth.mp4")) == 3


def test_a_rate_that_the_encoder_does_not_take_is_refused_before_any_work(
    bundled: DepthCrafter, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", moving_gradient(3, 64, 64))
    outputs = Outputs(("depth.mp4",), depth_codec="av1")
    with pytest.raises(
        UserError, match=r"AV1, 10 bits takes no 960 frames/s; choose another depth_codec or target_fps"
    ):
        Job(bundled, images, Sampling(steps=1), Source(max_res=64, fps=960), outputs, tmp_path / "out")
    Job(bundled, images, Sampling(steps=1), Source(max_res=64, fps=240), outputs, tmp_path / "out")


@pytest.mark.parametrize("pattern", ["shot.%04d.png", "shot.####.png"])
def test_a_numbered_sequence_is_read_in_order_of_its_numbers(tmp_path: Path, pattern: str) -> None:
    frames = moving_gradient(3, 64, 96)
    for number, frame in zip((9998, 9999, 10000), frames, strict=True):
        write_image(tmp_path / f"shot.{number}.png", frame, "png", "rgb24")
    write_image(tmp_path / "shot.999.png", frames[0], "png", "rgb24")  # of three digits: another sequence's
    write_image(tmp_path / "shot.final.png", frames[0], "png", "rgb24")
    info = probe(tmp_path / pattern)
    assert info.num_frames == 3
    assert info.fps == 24
    np.testing.assert_array_equal(read_all(info), frames)


def test_missing_numbers_are_all_named(numbered: Path) -> None:
    with pytest.raises(UserError, match=r"the frames 1004, 1008-1010 are missing; .*\[1001-1003,1005-1007,1011-1012\]"):
        probe(numbered / "shot.%04d.png")
    with pytest.raises(UserError, match=r"the frame 1004 is missing"):
        probe(numbered / "shot.%04d.png[1002-1005]")
    with pytest.raises(UserError, match=r"the frames 1013-1020 are missing"):
        probe(numbered / "shot.%04d.png[1011-1020]")


def test_a_range_takes_some_and_its_gaps_move_no_frame(numbered: Path) -> None:
    assert reds(probe(numbered / "shot.%04d.png[1005-1007]")) == [5, 6, 7]
    info = probe(numbered / "shot.####.png[1001-1003,1005-1007,1011-1012]")
    assert reds(info) == [1, 2, 3, 5, 6, 7, 11, 12]
    assert [info.timeline.time(i) * 24 for i in range(8)] == [0, 1, 2, 4, 5, 6, 10, 11]
    assert info.timeline.duration * 24 == 12
    assert any("4 frames are left out by the range" in note for note in info.notes)


def test_a_range_with_a_step_is_a_slower_sequence(numbered: Path) -> None:
    info = probe(numbered / "shot.%04d.png[1001-1007x2]")
    assert reds(info) == [1, 3, 5, 7]
    assert info.fps == 12
    assert info.timeline.duration == Fraction(8, 24)
    assert info.notes == ()


@pytest.mark.parametrize("name", ["[7-5]", "[1-]", "[5,4]", "[a]", "[1-99999999999]"])
def test_a_range_that_is_none_is_refused(numbered: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"has a range that is none; write it as \[100-200\]"):
        probe(numbered / f"shot.%04d.png{name}")


@pytest.mark.parametrize("name", ["take%04d.mp4", "take.mp4[1-3]", "take*.mp4"])
def test_a_file_that_exists_under_the_very_name_is_that_file(tmp_path: Path, name: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(5, 64, 64))
    try:
        clip.rename(tmp_path / name)
    except OSError:
        pytest.skip("a name that this file system does not take")
    assert probe(tmp_path / name).num_frames == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none_%04d.png", "There is no file .*none_%04d.png, and none that this pattern means"),
        ("none_*.png", "There is no file .*and none that this pattern means"),
        ("a%02d_%04d.png", "has more than one place for a number"),
        ("shot.%04d.mp4", "There is no file .*, and a sequence is of .png, "),
        ("*.png[1-3]", "has a range and no place for a number"),
        ("*", "means .*notes.txt too, which is no image"),
    ],
)
def test_a_pattern_that_means_nothing_is_one_sentence(numbered: Path, name: str, message: str) -> None:
    (numbered / "notes.txt").write_text("of the shoot")
    with pytest.raises(UserError, match=message):
        probe(numbered / name)


def test_results_are_called_after_the_sequence(tmp_path: Path) -> None:
    folder = tmp_path / "plates"
    names = {
        "shot_%04d.exr": "shot",
        "shot.####.exr[1-9]": "shot",
        "sc01_sh020.v003.%04d.dpx": "sc01_sh020.v003",
        "%04d.exr": "plates",
        "*.png": "plates",
        "%04d_beauty.exr": "beauty",
    }
    assert {name: sequence_name(folder / name) for name in names} == names


def test_all_images_of_a_name_are_a_sequence_in_natural_order(tmp_path: Path) -> None:
    frames = moving_gradient(11, 64, 96)
    folder = write_images(tmp_path / "frames", frames, "frame{}.png")
    write_image(folder / "thumb.jpg", frames[0], "mjpeg", "yuvj420p")
    np.testing.assert_array_equal(read_all(probe(folder / "frame*.png")), frames)
    assert probe(folder / "frame?.png").num_frames == 10


def test_a_sequence_of_several_sizes_is_refused(tmp_path: Path) -> None:
    for number, size in enumerate([(64, 96), (64, 96), (64, 64)]):
        write_image(tmp_path / f"a{number:02d}.png", np.zeros((*size, 3), np.uint8), "png", "rgb24")
    with pytest.raises(UserError, match=r"a02.png is 64x64 pixels where a00.png is 96x64"):
        probe(tmp_path / "a%02d.png")


@pytest.mark.parametrize(
    ("fps", "exact"), [(12.0, 12), (23.976, Fraction(24000, 1001)), (29.97, Fraction(30000, 1001))]
)
def test_images_have_the_rate_that_is_given(tmp_path: Path, fps: float, exact: Fraction) -> None:
    folder = write_images(tmp_path / "frames", moving_gradient(3, 64, 64))
    assert probe(folder).fps == 24
    assert probe(folder, Source(fps=fps)).fps == exact
    assert probe(folder / "frame%d.png", Source(fps=fps)).fps == exact


@pytest.mark.parametrize("options", [{"fps": 25.0}, {"exposure": 1.0}, {"view": "none"}, {"raw_size": "64x64"}])
def test_a_video_file_refuses_what_it_states_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(2, 64, 64))
    with pytest.raises(UserError, match="leave it out"):
        probe(clip, Source(**options))


def test_linear_exr_is_seen_as_srgb(tmp_path: Path) -> None:
    frames = moving_gradient(3, 64, 96)
    for i, light in enumerate(linear(frames)):
        write_exr(tmp_path / f"shot.{i:04d}.exr", planes(light))
    np.testing.assert_array_equal(read_all(probe(tmp_path / "shot.%04d.exr")), frames)
    # A stop is a factor of 2, and what is brighter than white is white.
    darker = read_all(probe(tmp_path / "shot.%04d.exr", Source(exposure=-1.0)))
    np.testing.assert_allclose(linear(darker), linear(frames) / 2, atol=0.004)
    assert (read_all(probe(tmp_path / "shot.%04d.exr", Source(exposure=12.0))) == 255).all()


def test_values_are_taken_as_they_are_where_no_view_is_asked_for(tmp_path: Path) -> None:
    frame = moving_gradient(1, 64, 96)[0]
    write_exr(tmp_path / "a.exr", planes(frame.astype(np.float32) / 255))
    np.testing.assert_array_equal(read_all(probe(tmp_path / "*.exr", Source(view="none")))[0], frame)


def test_a_view_without_an_exr_file_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frames", moving_gradient(1, 64, 64))
    with pytest.raises(UserError, match=r"frame0.png is no EXR file, which alone has exposure=2.0"):
        probe(folder, Source(exposure=2.0))


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "DWAA", "DWAB", "PXR24", "B44"])
def test_exr_of_every_compression_is_read(tmp_path: Path, kind: str, compression: str) -> None:
    frame = moving_gradient(1, 64, 96)[0]
    light = linear(frame).astype(kind)
    write_exr(tmp_path / "a.exr", planes(light), compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
    lossy = compression in ("DWAA", "DWAB", "B44") or kind == "float16"
    error = np.abs(read_all(probe(tmp_path / "*.exr"))[0].astype(int) - frame)
    assert error.max() <= (6 if compression.startswith("DWA") else 2 if lossy else 0)


def test_tiled_exr_is_read(tmp_path: Path) -> None:
    frame = moving_gradient(1, 70, 100)[0]
    tiles = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    write_exr(tmp_path / "a.exr", planes(linear(frame)), **tiles)
    np.testing.assert_array_equal(read_all(probe(tmp_path / "*.exr"))[0], frame)


@pytest.mark.parametrize(
    ("data", "display"),
    [((0, 0), (0, 0, 96, 64)), ((10, 4), (0, 0, 120, 80)), ((0, 0), (30, 20, 60, 40)), ((-8, -8), (-20, 0, 100, 50))],
)
def test_a_data_window_is_placed_in_the_display_window(
    tmp_path: Path, data: tuple[int, int], display: tuple[int, int, int, int]
) -> None:
    """Corners are x, y; the display window is left, top, width, height."""
    frame = moving_gradient(1, 64, 96)[0]
    (left, top), (x, y, width, height) = data, display

    def window(left: int, top: int, width: int, height: int) -> Any:
        return (np.array([left, top], np.int32), np.array([left + width - 1, top + height - 1], np.int32))

    write_exr(
        tmp_path / "a.exr", planes(linear(frame)), dataWindow=window(left, top, 96, 64), displayWindow=window(*display)
    )
    canvas = np.zeros((400, 400, 3), np.uint8)
    canvas[100 + top : 164 + top, 100 + left : 196 + left] = frame
    expected = canvas[100 + y : 100 + y + height, 100 + x : 100 + x + width]
    np.testing.assert_array_equal(read_all(probe(tmp_path / "*.exr"))[0], expected)


def test_the_picture_of_several_parts_and_layers_is_found(tmp_path: Path) -> None:
    frame = moving_gradient(1, 64, 96)[0]
    depth = OpenEXR.Part({"name": "depth", "type": OpenEXR.scanlineimage}, {"Z": np.ones((64, 96), np.float32)})
    beauty = OpenEXR.Part({"name": "beauty", "type": OpenEXR.scanlineimage}, planes(linear(frame)))
    OpenEXR.File([depth, beauty]).write(str(tmp_path / "parts.exr"))
    info = probe(tmp_path / "parts*.exr")
    np.testing.assert_array_equal(read_all(info)[0], frame)
    assert info.notes == ("of several parts, of which beauty is read",)
    write_exr(
        tmp_path / "layers.exr", planes(linear(frame), "ViewLayer.Combined.") | {"Z": np.ones((64, 96), np.float32)}
    )
    info = probe(tmp_path / "layers*.exr")
    np.testing.assert_array_equal(read_all(info)[0], frame)
    assert info.notes == ("without channels of their own: the layer ViewLayer.Combined is read",)


def test_luminance_alone_is_grey_and_depth_alone_is_refused(tmp_path: Path) -> None:
    grey = moving_gradient(1, 64, 96)[0, ..., 0]
    write_exr(tmp_path / "grey.exr", {"Y": linear(grey)})
    np.testing.assert_array_equal(read_all(probe(tmp_path / "grey*.exr"))[0], np.repeat(grey[..., None], 3, -1))
    write_exr(tmp_path / "depth.exr", {"Z": linear(grey)})
    with pytest.raises(UserError, match=r"neither colour \(R, G and B\) nor luminance \(Y\): its channels are Z"):
        probe(tmp_path / "depth*.exr")


def write_luminance_with_chroma(path: Path, light: NDArray[np.float32]) -> None:
    """RY and BY of every second pixel and row, which the library reads and does not write: without compression."""
    height, width = light.shape[:2]
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    red, blue = ((light[..., i] - luminance) / luminance for i in (0, 2))

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value

    channels = b"".join(
        name + b"\0" + struct.pack("<iiii", 2, 0, step, step) for name, step in ((b"BY", 2), (b"RY", 2), (b"Y", 1))
    )
    window = struct.pack("<iiii", 0, 0, width - 1, height - 1)
    header = b"\x76\x2f\x31\x01" + struct.pack("<i", 2)
    header += attribute("channels", "chlist", channels + b"\0") + attribute("compression", "compression", b"\0")
    header += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window)
    header += attribute("lineOrder", "lineOrder", b"\0") + attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", bytes(8))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    lines = []
    for y in range(height):
        chroma = b"".join(plane[y, ::2].astype("<f4").tobytes() for plane in (blue, red)) if y % 2 == 0 else b""
        data = chroma + luminance[y].astype("<f4").tobytes()
        lines.append(struct.pack("<ii", y, len(data)) + data)
    starts = np.cumsum([len(header) + 8 * height, *map(len, lines[:-1])]).astype("<u8")
    path.write_bytes(header + starts.tobytes() + b"".join(lines))


def test_luminance_with_chroma_is_colour(tmp_path: Path) -> None:
    frame = moving_gradient(1, 64, 96)[0]
    write_luminance_with_chroma(tmp_path / "yc.exr", linear(frame))
    assert np.abs(read_all(probe(tmp_path / "yc*.exr"))[0].astype(int) - frame).mean() < 3


def test_what_is_no_number_in_an_exr_file_is_black_and_what_is_infinite_white(tmp_path: Path) -> None:
    for kind in (np.float16, np.float32):
        light = np.full((64, 64, 3), 0.5, kind)
        light[0, :4, 0] = np.nan, np.inf, -np.inf, -1
        write_exr(tmp_path / "a.exr", planes(light))
        assert read_all(probe(tmp_path / "*.exr"))[0, 0, :4, 0].tolist() == [0, 255, 0, 0]


def test_anamorphic_exr_is_read_as_it_is_shown(tmp_path: Path) -> None:
    write_exr(tmp_path / "a.exr", planes(linear(moving_gradient(1, 64, 96)[0])), pixelAspectRatio=2.0)
    info = probe(tmp_path / "*.exr")
    assert (info.height, info.width) == (64, 192)
    assert info.aspect == 3
    assert info.stored_size == (64, 96)
    assert info.notes == ("stored with pixels of 2:1, read as it is shown",)


def test_a_broken_exr_file_is_named(tmp_path: Path) -> None:
    for number in range(3):
        write_exr(tmp_path / f"a.{number}.exr", planes(linear(moving_gradient(1, 64, 96)[0])))
    path = tmp_path / "a.1.exr"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a.1.exr is not an image that can be read"):
        probe(tmp_path / "a.%d.exr")


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format", "error"),
    [
        ("dpx", "dpx", "rgb24", 0),
        ("dpx", "dpx", "gbrp10le", 1),
        ("dpx", "dpx", "gbrp12le", 1),
        ("dpx", "dpx", "rgb48le", 1),
        ("tiff", "tiff", "rgb24", 0),
        ("tif", "tiff", "rgb48le", 1),
    ],
)
def test_dpx_and_tiff_frames_are_read(tmp_path: Path, suffix: str, codec: str, pixel_format: str, error: int) -> None:
    frames = moving_gradient(2, 64, 96)
    for number, frame in enumerate(frames):
        write_image(tmp_path / f"shot.{number:04d}.{suffix}", frame, codec, pixel_format)
    info = probe(tmp_path / f"shot.%04d.{suffix}")
    assert np.abs(read_all(info).astype(int) - frames).max() <= error
    assert (info.num_frames, info.notes) == (2, ())


def test_logarithmic_dpx_is_told(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dpx", moving_gradient(1, 64, 96)[0], "dpx", "gbrp10le")
    contents = bytearray(path.read_bytes())
    contents[801] = 1  # printing density, SMPTE 268M
    path.write_bytes(contents)
    assert probe(tmp_path / "*.dpx").notes == (
        "in DPX's logarithmic densities, read as they are, without a conversion",
    )


def test_avif_frames_are_read(tmp_path: Path) -> None:
    frames = moving_gradient(2, 64, 96)
    for number, frame in enumerate(frames):
        with av.open(str(tmp_path / f"shot.{number}.avif"), "w") as container:
            stream = container.add_stream("libsvtav1", rate=1, options={"crf": "10"})
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    assert np.abs(read_all(probe(tmp_path / "shot.%d.avif")).astype(int) - frames).mean() < 5
    assert probe(tmp_path).num_frames == 2


def test_a_sequence_gives_the_bits_of_the_folder(tmp_path: Path) -> None:
    """Run as it is typed: named after its pattern, at the rate that is asked for."""
    folder = write_images(tmp_path / "frames", moving_gradient(10, 64, 64), "shot_{:04d}.png")
    for source, name in ((folder, "frames"), (folder / "shot_%04d.png", "shot"), (folder / "*_*.png", "frames")):
        out = tmp_path / f"out_{name}_{Path(source).name.count('*')}"
        done = dc_rt("infer", source, *FAST, "--save-npz", "--fps", "12.5", "--save-folder", out)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(
            np.load(out / f"{name}.npz")["depth"], np.load(tmp_path / "out_frames_0" / "frames.npz")["depth"]
        )
        record = json.loads((out / f"{name}.json").read_text())
        assert (record["source"]["fps"], record["options"]["fps"]) == (12.5, 12.5)
        assert contents(out, ".json").keys() == {f"{name}{suffix}" for suffix in SUFFIXES}


SUFFIXES = (".npz", "_depth.mp4", "_input.mp4", "_vis.mp4")


def test_a_kept_sequence_is_delivered_with_its_pictures(tmp_path: Path) -> None:
    """Its images are found again by the pattern, and known by what is in them."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for number, light in enumerate(linear(moving_gradient(4, 64, 96))):
        write_exr(folder / f"shot.{number:04d}.exr", planes(light))
    outputs = ("--outputs", "depth.mp4,input.mp4", "--size", "source")
    how = (folder / "shot.%04d.exr", *FAST, "--exposure", "-1", "--fps", "12")
    assert dc_rt("infer", *how, *outputs, "--keep", "raw", "--save-folder", "direct").returncode == 0
    raw = Path("direct/shot.raw.zarr.zip")
    done = dc_rt("deliver", raw, *outputs, "--save-folder", "delivered")
    assert done.returncode == 0, done.stderr
    direct = contents(Path("direct"), ".json")
    assert contents(Path("delivered"), ".json") == {name: direct[name] for name in direct if name != raw.name}
    (folder / "shot.0001.exr").write_bytes((folder / "shot.0000.exr").read_bytes())
    assert_refused(dc_rt("deliver", raw, *outputs, "--save-folder", "other"), "is not the video that .* is of")


def test_results_never_replace_the_frames_of_a_sequence(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frame", moving_gradient(3, 64, 64), "frame_{:04d}.png")
    done = dc_rt("infer", folder / "frame_%04d.png", *FAST, "--save-png", "--save-folder", tmp_path)
    assert_refused(done, "would be (mixed|overwritten)")


def test_missing_frames_are_said_by_the_command(numbered: Path) -> None:
    done = dc_rt("infer", numbered / "shot.%04d.png", *FAST)
    assert_refused(done, "the frames 1004, 1008-1010 are missing")
    assert not Path("demo_output").exists()


def test_a_home_folder_is_found_in_every_path(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_images(home / "frames", moving_gradient(2, 64, 64))
    environment = {"HOME": str(home), "USERPROFILE": str(home)}
    done = dc_rt("infer", "~/frames/*.png", "--save-folder=~/out", *FAST, environment=environment)
    assert done.returncode == 0, done.stderr
    assert (home / "out" / "frames_depth.mp4").is_file()
    assert_refused(dc_rt("infer", "~/frames", "--engines=~/none", *FAST, environment=environment), f"{home}")


def test_videos_of_a_name_are_taken_one_by_one(tmp_path: Path) -> None:
    """On Windows no shell expands the star."""
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", moving_gradient(2, 64, 64))
    done = dc_rt("infer", tmp_path / "*.mp4", *FAST, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert all(f"{tmp_path / name}.mp4: 2 of 2 frames" in done.stdout for name in ("a", "b"))


def test_images_that_a_shell_made_of_a_pattern_are_told(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frames", moving_gradient(3, 64, 64))
    told = "3 images are taken for videos of one frame each; a sequence of them is one name in quotes."
    assert told in dc_rt("infer", *sorted(folder.iterdir()), *FAST, "--dry-run").stdout
    done = dc_rt("infer", folder / "*.png", *FAST, "--dry-run")
    assert told not in done.stdout
    assert "3 of 3 frames" in done.stdout
