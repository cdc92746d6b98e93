"""Every format that results are written in, read back by two readers that know nothing of each other.

EXR by OpenEXR and OpenImageIO, images by PyAV and OpenImageIO, videos by PyAV and FFmpeg's program. What is not
installed is left out, with a word.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import matplotlib
import numpy as np
import OpenEXR
import pytest
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from dc_rt import DepthCrafter, Job, Outputs, Sampling, Source
from dc_rt.errors import UserError
from dc_rt.formats import COLORMAPS, EXR_PRESETS, VIDEO_CODECS, container_for
from dc_rt.job import Planned, Progressed
from dc_rt.media import (
    ExrWriter,
    PngWriter,
    TiffWriter,
    Timeline,
    VideoWriter,
    coloured,
    probe,
    to_uint8,
    to_uint16,
)
from dc_rt.media.audio import AudioPackets, audio_codec
from dc_rt.media.timecode import TimeCodes
from dc_rt.media.write_frames import check_half
from dc_rt.media.write_video import check_video
from dc_rt.outputs import frame_name
from media_helpers import decode, moving_gradient, write_clip_with_sound

HAS_ENCODER = {name: codec.encoder in av.codecs_available for name, codec in VIDEO_CODECS.items()}
CODECS = [
    pytest.param(name, marks=pytest.mark.skipif(not HAS_ENCODER[name], reason=f"this PyAV has no {codec.encoder}"))
    for name, codec in VIDEO_CODECS.items()
]
# As the decoder gives them, with the bits of their grey.
STORED = {
    "h264": ("yuv420p", 8),
    "hevc": ("yuv420p10le", 10),
    "ffv1": ("gray16le", 16),
    "prores": ("yuv444p12le", 12),
    "av1": ("yuv420p10le", 10),
}
# Of slopes and an edge, at most, in parts of the range: a lossless codec rounds once.
MEAN_ERROR = {"h264": 5e-3, "hevc": 1e-3, "ffv1": 0.51 / 65535, "prores": 5e-4, "av1": 3e-3}


def all_levels() -> NDArray[np.uint16]:
    """Every number of 16 bits once, [256,256], so that each differs from its neighbours."""
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


def moving_depth(num_frames: int, height: int, width: int) -> NDArray[np.float32]:
    """A slope, and a disc before it that moves: float32 [T,H,W] from 0 to 1."""
    y, x = np.mgrid[:height, :width]
    slope = 0.6 * (x + y) / (height + width - 2)
    frames = [
        np.where(np.hypot(x - width / 3 - 2 * t, y - height / 2) < height / 4, 1.0, slope) for t in range(num_frames)
    ]
    return np.asarray(frames, np.float32)


def grey_of(planes: NDArray[np.uint8], height: int, width: int, bits: int) -> NDArray[np.float64]:
    """Luma [H,W] in [0,1], of the bytes of a picture without padding."""
    kind = np.dtype(np.uint8 if bits == 8 else "<u2")
    luma = planes.reshape(-1)[: height * width * kind.itemsize].view(kind).reshape(height, width).astype(float)
    unit = 1 << (bits - 8)
    return luma / 65535 if bits == 16 else (luma - 16 * unit) / (219 * unit)


def read_by_pyav(path: Path, height: int, width: int, bits: int) -> NDArray[np.float64]:
    found = []
    with av.open(f"file:{path}") as container:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            lines = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
            found.append(grey_of(lines[:, : width * (1 if bits == 8 else 2)].copy(), height, width, bits))
    return np.stack(found)


def read_by_ffmpeg(path: Path, height: int, width: int, pixel_format: str, bits: int) -> NDArray[np.float64]:
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    command = [program, "-v", "error", "-i", f"file:{path}", "-map", "0:v", "-fps_mode", "passthrough"]
    done = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", pixel_format, "-"], capture_output=True, check=True)
    # Of colour at half the resolution, an odd size has one more.
    half = ((height + 1) // 2) * ((width + 1) // 2)
    chroma = {"gray": 0, "yuv420": 2 * half, "yuv444": 2 * height * width}[pixel_format.split("p")[0].rstrip("16le")]
    size = (height * width + chroma) * (1 if bits == 8 else 2)
    pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, size)
    return np.stack([grey_of(picture, height, width, bits) for picture in pictures])


@pytest.mark.parametrize("size", [(64, 96), (63, 97)], ids=["even", "odd"])
@pytest.mark.parametrize("name", CODECS)
def test_a_video_of_every_codec_is_depth_within_its_bits_for_two_readers(tmp_path, name, size):
    height, width = size
    depth = moving_depth(8, height, width)
    path = tmp_path / f"depth.{container_for(name, None)}"
    with VideoWriter(path, Fraction(30000, 1001), height, width, codec=name, sample_aspect_ratio=Fraction(4, 3)) as to:
        for frame in depth:
            to.write(to_uint16(frame))
    stored, bits = STORED[name]
    if height % 2 and name in ("h264", "hevc"):
        stored = stored.replace("420", "444")
    found = read_by_pyav(path, height, width, bits)
    assert found.shape == depth.shape
    assert np.abs(found - depth).mean() < MEAN_ERROR[name]
    # A 16-bit writer that fell back to 8 bits, or stretched the range, would be off by this much in flat parts.
    assert np.abs(np.median(found[:, height // 2, width // 3]) - 1) < 2 / 2**bits + (name == "h264") / 100
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.pix_fmt) == (height, width, stored)
        assert stream.average_rate == Fraction(30000, 1001)
        assert float(stream.sample_aspect_ratio or 0) == pytest.approx(4 / 3, rel=0.01 if name == "ffv1" else 0)
        assert (stream.color_primaries, stream.color_trc) == (1, 1)
        assert (stream.colorspace, stream.color_range) == ((2, 2) if name == "ffv1" else (1, 1)) or name == "ffv1"
        if name == "hevc":
            assert stream.codec_context.codec_tag == "hvc1"
    np.testing.assert_array_equal(read_by_ffmpeg(path, height, width, stored, bits), found)


@pytest.mark.parametrize("name", CODECS)
def test_frames_of_every_codec_are_shown_when_the_timeline_says(tmp_path, name):
    times = np.array([0, 33, 67, 100, 400, 433, 900], np.int64)
    timeline = Timeline(Fraction(1, 1000), times, 1000, Fraction(7), False)
    path = tmp_path / f"depth.{container_for(name, None)}"
    with VideoWriter(path, timeline, 64, 96, codec=name) as writer:
        for number, frame in enumerate(moving_depth(7, 64, 96)):
            writer.write(to_uint16(frame), number)
    with av.open(str(path)) as container:
        shown = [round(float(frame.pts * frame.time_base) * 1000) for frame in container.decode(video=0)]
    assert shown == times.tolist()
    assert probe(path).num_frames == 7


@pytest.mark.parametrize("name", CODECS)
def test_the_same_depth_gives_the_same_bytes_in_every_codec(tmp_path, name):
    contents = set()
    for height, width in ((96, 160), (64, 64)):
        for _ in range(4):
            with VideoWriter(tmp_path / "clip", Fraction(24), height, width, codec=name) as writer:
                for frame in moving_depth(20, height, width):
                    writer.write(to_uint16(frame))
            contents.add((tmp_path / "clip").read_bytes())
    assert len(contents) == 2


def test_grey_of_16_bits_is_rounded_once_to_the_codes_of_a_codec(tmp_path):
    """ProRes of a flat picture is exact, so that what goes into the encoder shows."""
    for code in (0, 1, 32768, 40000, 65534, 65535):
        with VideoWriter(tmp_path / "flat.mov", Fraction(24), 64, 64, codec="prores") as writer:
            writer.write(np.full((64, 64), code, np.uint16))
        with av.open(str(tmp_path / "flat.mov")) as container:
            frame = next(container.decode(video=0))
            values = [np.frombuffer(bytes(plane), "<u2").reshape(64, -1)[:, :64] for plane in frame.planes[:3]]
        assert np.abs(values[0] / 4 - round(64 + 876 * code / 65535)).max() <= 0.25
        assert np.abs(values[1] / 4 - 512).max() <= 0.25
        assert np.abs(values[2] / 4 - 512).max() <= 0.25


def write_frames(writer: Any, frames: Any, times: Iterator[Fraction] | None = None) -> None:
    with writer:
        for frame in frames:
            writer.write(frame, next(times) if times else None)


@pytest.mark.parametrize("kind", ["ffv1", "png", "tiff"])
def test_a_lossless_ramp_keeps_all_65536_levels(tmp_path, kind):
    ramp = all_levels()
    if kind == "ffv1":
        path = tmp_path / "ramp.mkv"
        with VideoWriter(path, Fraction(24), 256, 256, codec="ffv1") as writer:
            writer.write(ramp)
        np.testing.assert_array_equal(read_by_pyav(path, 256, 256, 16)[0] * 65535, ramp)
        np.testing.assert_array_equal(read_by_ffmpeg(path, 256, 256, "gray16le", 16)[0] * 65535, ramp)
        return
    write_frames((PngWriter if kind == "png" else TiffWriter)(tmp_path / "ramp"), [ramp])
    (path,) = (tmp_path / "ramp").iterdir()
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == ("gray16be" if kind == "png" else "gray16le")
    np.testing.assert_array_equal(frame.to_ndarray(), ramp)
    oiio = pytest.importorskip("OpenImageIO")
    image = oiio.ImageInput.open(str(path))
    assert (str(image.spec().format), image.spec().nchannels) == ("uint16", 1)
    np.testing.assert_array_equal(image.read_image(oiio.UINT16)[..., 0], ramp)
    image.close()
    assert path.stat().st_size < 125_000  # compressed: 131,072 bytes otherwise


@pytest.mark.parametrize(
    ("preset", "kind", "compression"), [*itertools.product(EXR_PRESETS, ("float", "half"), ("zip", "zips", "piz"))]
)
def test_an_exr_file_is_what_its_preset_says_for_two_readers(tmp_path, preset, kind, compression):
    depth = moving_depth(2, 48, 80)
    folder = tmp_path / "frames"
    writer = ExrWriter(
        folder,
        Fraction(3, 2),
        preset=preset,
        half=kind == "half",
        compression=compression,
        fps=Fraction(24000, 1001),
        time_codes=TimeCodes.parse("01:02:03:22", Fraction(24000, 1001)),
        attributes={"focal": 35.5},
        start_number=1001,
    )
    write_frames(writer, depth, (i / Fraction(24000, 1001) for i in itertools.count()))
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == ["frame_1001.exr", "frame_1002.exr"]
    expected = depth.astype(np.float16 if kind == "half" else np.float32)
    for path, frame, seconds, number in zip(paths, expected, (3, 3), (22, 23), strict=True):
        file = OpenEXR.File(str(path), separate_channels=True)
        header, channels = file.header(), file.channels()
        assert sorted(channels) == sorted(EXR_PRESETS[preset].channels)
        for channel in channels.values():
            assert channel.pixels.dtype == expected.dtype
            np.testing.assert_array_equal(channel.pixels, frame)
        assert header["compression"] == getattr(OpenEXR, f"{compression.upper()}_COMPRESSION")
        assert (header["pixelAspectRatio"], header["focal"]) == (1.5, 35.5)
        assert header["framesPerSecond"] == Fraction(24000, 1001)
        code = header["timeCode"]
        assert (code.hours, code.minutes, code.seconds, code.frame) == (1, 2, seconds, number)
        assert ("BlenderMultiChannel" in header) == (preset == "blender")
        oiio = pytest.importorskip("OpenImageIO")
        image = oiio.ImageInput.open(str(path))
        spec = image.spec()
        assert sorted(spec.channelnames) == sorted(EXR_PRESETS[preset].channels)
        assert str(spec.format) == kind
        assert spec.getattribute("compression") == compression
        assert spec.getattribute("PixelAspectRatio") == 1.5
        assert spec.getattribute("FramesPerSecond") == (24000, 1001)
        assert spec.getattribute("smpte:TimeCode") == (int(f"010203{number}", 16), 0)
        pixels = image.read_image(oiio.FLOAT)
        image.close()
        for index in range(len(spec.channelnames)):
            np.testing.assert_array_equal(pixels[..., index], frame.astype(np.float32))


def test_a_viewer_of_colour_sees_depth_in_the_presets_that_have_it(tmp_path):
    """FFmpeg's decoder is one: of a lone Z it shows nothing, whichever version it is."""
    depth = moving_depth(1, 48, 80)
    for preset in ("rgb", "fusion"):
        write_frames(ExrWriter(tmp_path / preset, preset=preset), depth)
        with av.open(str(tmp_path / preset / "frame_0000.exr")) as container:
            picture = next(container.decode(video=0))
        assert picture.format.name == "gbrpf32le"
        for plane in picture.planes:
            np.testing.assert_allclose(np.frombuffer(bytes(plane), "<f4").reshape(48, -1)[:, :80], depth[0], atol=1e-6)


def test_half_floats_are_refused_for_what_they_cannot_hold():
    check_half(-65504, 65504)
    with pytest.raises(UserError, match="70000 are more than half floats hold, which is 65504; use exr_type='float'"):
        check_half(0, 70000)


# Time codes


@pytest.mark.parametrize(
    ("start", "fps", "frame", "shown"),
    [
        ("00:00:00:00", Fraction(24), 25, "00:00:01:01"),
        ("01:00:00:00", Fraction(25), 25 * 3600, "02:00:00:00"),
        ("23:59:59:24", Fraction(25), 1, "00:00:00:00"),
        # ST 12-1: numbers 0 and 1 are left out in every minute but each tenth.
        ("00:00:59;29", Fraction(30000, 1001), 1, "00:01:00;02"),
        ("00:09:59;29", Fraction(30000, 1001), 1, "00:10:00;00"),
        ("00:00:00;00", Fraction(30000, 1001), 17982, "00:10:00;00"),
        ("01:00:00;00", Fraction(30000, 1001), 107892, "02:00:00;00"),
        ("00:00:59:29", Fraction(30000, 1001), 1, "00:01:00:00"),
        # There is no drop frame at 25.
        ("00:00:59;24", Fraction(25), 1, "00:01:00:00"),
        ("nonsense", Fraction(24), 0, "00:00:00:00"),
    ],
)
def test_time_codes_count_on(start, fps, frame, shown):
    code = TimeCodes.parse(start, fps).at(frame / fps)
    mark = ";" if code.is_drop_frame else ":"
    assert f"{code.hours:02}:{code.minutes:02}:{code.seconds:02}{mark}{code.frame:02}" == shown


def test_no_two_frames_of_an_hour_of_drop_frame_have_one_time_code():
    codes = TimeCodes.parse("00:58:00;02", Fraction(30000, 1001))
    shown = [codes.at(number / codes.fps) for number in range(20_000)]
    assert len(set(shown)) == len(shown)
    assert not any(code.seconds == 0 and code.frame < 2 and code.minutes % 10 for code in shown)


def test_above_30_frames_a_second_a_code_counts_pairs_and_marks_the_second():
    codes = TimeCodes.parse("00:00:00:00", Fraction(50))
    assert [(codes.at(n / codes.fps).frame, codes.at(n / codes.fps).field) for n in (0, 1, 2, 49)] == [
        (0, False),
        (0, True),
        (1, False),
        (24, True),
    ]


@pytest.mark.parametrize("text", ["10:11:12:13", "01:00:00;02"])
def test_the_time_code_of_a_camera_is_found(tmp_path, text):
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30000, 1001))
        stream.height = stream.width = 64
        stream.metadata["timecode"] = text
        for frame in moving_gradient(3, 64, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    codes = TimeCodes.of(probe(path))
    assert codes == TimeCodes.parse(text, Fraction(30000, 1001))
    assert codes.is_drop_frame == (";" in text)


# 8 bits


def test_dither_has_depth_itself_on_average_and_none_is_off_by_more_than_a_step():
    for value in np.random.default_rng(0).uniform(0.001, 0.999, 20).astype(np.float32):
        levels = to_uint8(np.full((128, 256), value, np.float32), dither=True)
        assert abs(levels.mean() / 255 - value) * 255 < 0.01
        assert set(np.unique(levels)) <= {int(value * 255), int(value * 255) + 1}
    ends = to_uint8(np.array([[0, 1]], np.float32), dither=True)
    assert ends.tolist() == [[0, 255]]


def test_dither_is_the_same_in_every_frame_and_off_unless_asked_for():
    depth = moving_depth(1, 64, 64)[0]
    np.testing.assert_array_equal(to_uint8(depth, dither=True), to_uint8(depth, dither=True))
    np.testing.assert_array_equal(to_uint8(depth), (depth * 255).astype(np.uint8))
    assert (to_uint8(depth) != to_uint8(depth, dither=True)).mean() > 0.2


@pytest.mark.parametrize(("name", "theirs"), [("inferno", "inferno"), ("turbo", "turbo"), ("spectral", "Spectral_r")])
def test_colour_maps_are_matplotlibs(name, theirs):
    depth = np.linspace(0, 1, 10_000, dtype=np.float32)
    table = (matplotlib.colormaps[theirs](np.arange(256))[:, :3] * 255).astype(np.uint8)
    np.testing.assert_array_equal(coloured(depth, name), table[(depth * 255).astype(int)])


def test_near_is_bright_or_red_in_every_colour_map():
    for name in COLORMAPS:
        far, near = coloured(np.array([0, 1], np.float32), name).astype(int)
        assert near[0] > far[0]
        assert near[0] >= near[2]
        assert far[2] >= far[0]


# Sound

SOURCES = {
    "clip.mp4": "aac",
    "clip.ts": "aac",
    "opus.mkv": "libopus",
    "vorbis.mkv": "vorbis",
    "clip.mov": "pcm_s16le",
    "clip.avi": "libmp3lame",
}
CONTAINERS = {
    "clip.mp4": ("mp4", "mkv", "mov"),
    "clip.ts": ("mp4", "mkv", "mov"),
    "opus.mkv": ("mp4", "mkv", "mkv"),
    "vorbis.mkv": ("mkv", "mkv", "mkv"),
    "clip.mov": ("mov", "mkv", "mov"),
    "clip.avi": ("mp4", "mkv", "mov"),
}
"""For H.264, FFV1 and ProRes."""


def sounding(path: Path, codec: str, seconds: float = 2.5, start: float = 0.0, first_picture: int = 0) -> Path:
    """Two seconds of pictures at 24 a second from that number on, with a chord of another length and start."""
    with av.open(str(path), "w") as container:
        # Not H.264, whose frames that are stored out of order AVI has no times for.
        video = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=24)
        video.height, video.width = 64, 96
        sound: Any = container.add_stream(codec, rate=48000)
        sound.layout = "stereo"
        sound.codec_context.options = {"strict": "-2"}
        for number, image in enumerate(moving_gradient(48, 64, 96), first_picture):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 24)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        t = np.arange(int(seconds * 48000))
        samples = np.stack([np.sin(0.06 * t), np.sin(0.05 * t)]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, int(start * 48000), Fraction(1, 48000)
        wanted = sound.codec_context.codec.audio_formats[0].name
        resampler = av.AudioResampler(wanted, "stereo", 48000, sound.codec_context.frame_size or 1024)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def copy_with_sound(source: Path, path: Path, codec: str = "h264", num_frames: int = 48) -> Path:
    video = probe(source)
    timeline = video.timeline.every(1, num_frames)
    with (
        AudioPackets(video) as audio,
        VideoWriter(path, timeline, 64, 96, codec=codec, audio=audio.stream) as writer,
    ):
        for number in range(num_frames):
            ends = timeline.time(number + 1) if number + 1 < num_frames else timeline.duration
            writer.write(np.full((64, 96), 1000 * number, np.uint16), number, audio.until(ends))
    return path


def packets_of(path: Path, bitstream_filter: str | None = None) -> list[bytes]:
    """All packets of the sound, after a bitstream filter."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.pts is not None]
        if bitstream_filter:
            through = BitStreamFilterContext(bitstream_filter, container.streams.audio[0])
            packets = [filtered for packet in packets for filtered in through.filter(packet)]
        return [bytes(packet) for packet in packets]


def start_of_sound(path: Path) -> float:
    """Seconds from the first picture that is shown to the first packet of the sound."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
    with av.open(str(path)) as container:
        packet = next(container.demux(audio=0))
        return float(packet.pts * packet.time_base - first.pts * first.time_base)


@pytest.mark.parametrize("codec", ["h264", "ffv1", "prores"])
@pytest.mark.parametrize("name", SOURCES)
def test_sound_is_copied_byte_for_byte_into_a_container_that_holds_it(tmp_path, name, codec):
    source = sounding(tmp_path / name, SOURCES[name])
    suffix = container_for(codec, audio_codec(source))
    assert suffix == CONTAINERS[name][("h264", "ffv1", "prores").index(codec)]
    path = copy_with_sound(source, tmp_path / f"copy.{suffix}", codec)
    packets = packets_of(source, "aac_adtstoasc" if name == "clip.ts" else None)
    copied = packets_of(path)
    assert copied == packets[: len(copied)]
    with av.open(str(path)) as container:
        assert container.format.name.split(",")[0] == {"mkv": "matroska"}.get(suffix, "mov")
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / 48000
    assert 1.95 <= seconds < 2.1  # where the pictures end, of the two and a half that there are
    assert abs(start_of_sound(path) - start_of_sound(source)) < 0.002


@pytest.mark.parametrize("name", ["clip.mp4", "opus.mkv", "clip.ts"])
def test_sound_that_starts_later_does_so_in_the_copy(tmp_path, name):
    source = sounding(tmp_path / name, SOURCES[name], seconds=1, start=0.75)
    path = copy_with_sound(source, tmp_path / "copy")
    assert abs(start_of_sound(source) - 0.75) < 0.03
    assert abs(start_of_sound(path) - start_of_sound(source)) < 0.002


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
@pytest.mark.parametrize("name", ["clip.ts", "opus.mkv"])
def test_sound_that_starts_before_the_pictures_stays_in_step(tmp_path, name, codec):
    source = sounding(tmp_path / name, SOURCES[name], first_picture=12)
    path = copy_with_sound(source, tmp_path / "copy", codec)
    assert abs(start_of_sound(source) + 0.5) < 0.03
    assert abs(start_of_sound(path) - start_of_sound(source)) < 0.002
    packets = packets_of(source, "aac_adtstoasc" if name == "clip.ts" else None)
    assert packets_of(path) == packets[: len(packets_of(path))]
    assert probe(path).num_frames == 48


def test_sound_is_cut_where_a_shorter_video_ends(tmp_path):
    source = sounding(tmp_path / "clip.mp4", "aac")
    path = copy_with_sound(source, tmp_path / "copy.mp4", num_frames=12)
    with av.open(str(path)) as container:
        assert 0.5 <= sum(frame.samples for frame in container.decode(audio=0)) / 48000 < 0.56


def test_two_copies_of_one_sound_have_the_same_bytes_and_leave_the_packets_as_they_are(tmp_path):
    source = sounding(tmp_path / "clip.mp4", "aac")
    video = probe(source)
    with AudioPackets(video) as audio:
        writers = [VideoWriter(tmp_path / f"{i}", video.timeline, 64, 96, audio=audio.stream) for i in range(2)]
        for number in range(48):
            packets = audio.until(video.timeline.time(number) + Fraction(1, 24))
            for writer in writers:
                writer.write(np.full((64, 96), number, np.uint16), number, packets)
        for writer in writers:
            writer.__exit__(None)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_sound_that_no_container_holds_is_refused_before_work(tmp_path):
    source = sounding(tmp_path / "clip.avi", "adpcm_ms")
    with pytest.raises(UserError, match=r"adpcm_ms cannot be copied into matroska; leave out audio=True"):
        check_video("h264", 64, 96, source)
    check_video("h264", 64, 96, write_clip_with_sound(tmp_path / "aac.mp4", moving_gradient(3, 64, 96)))


@pytest.mark.parametrize("name", VIDEO_CODECS)
def test_an_encoder_that_is_missing_is_one_sentence_before_work(tmp_path, monkeypatch, name):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {VIDEO_CODECS[name].encoder})
    with pytest.raises(UserError, match=r"has no \S+( 4444)? encoder; get one that has with"):
        check_video(name, 64, 96)


def test_a_size_that_an_encoder_does_not_take_is_one_sentence_before_work():
    with pytest.raises(UserError, match=r"The encoder of HEVC, 10 bits takes no pictures of 8x8; choose another depth"):
        check_video("hevc", 8, 8)


# Numbers


def test_frame_numbers_are_wide_enough_to_sort(tmp_path):
    write_frames(PngWriter(tmp_path / "new", start_number=9998, padding=5), np.zeros((4, 2, 2), np.uint16))
    names = [frame_name(number, ".png", 5) for number in range(9998, 10002)]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names


def test_numbers_of_fewer_digits_than_are_known_as_ours_are_refused():
    with pytest.raises(UserError, match="padding must be 0 or at least 4, not 3; try padding=4"):
        Outputs(padding=3)


def test_colour_goes_into_a_video_of_ten_bits(tmp_path):
    frames = np.repeat(moving_gradient(1, 64, 96), 5, axis=0)
    with VideoWriter(tmp_path / "clip.mp4", Fraction(24), 64, 96, codec="hevc") as writer:
        for frame in frames:
            writer.write(frame)
    assert np.abs(decode(tmp_path / "clip.mp4").astype(int) - frames).mean() < 3


# Whole runs


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, with PCM, which MP4 does not hold."""
    return sounding(tmp_path_factory.mktemp("clip") / "clip.mov", "pcm_s16le")


def run(model: DepthCrafter, clip: Path, *names: str, folder: str = "out", **values: Any) -> Path:
    """Write these outputs of the first frames; gives the folder."""
    outputs = Outputs(names, **values)
    Job(model, clip, Sampling(1, window_size=16, overlap=5), Source(12, max_res=64), outputs, folder).run()
    return Path(folder)


def frames_of(folder: Path, suffix: str) -> list[Path]:
    return sorted((folder / "clip").glob(f"*{suffix}"))


def size_of(depth: NDArray[np.float32]) -> tuple[int, int]:
    """Height and width."""
    return depth.shape[1], depth.shape[2]


def read_grey(path: Path) -> NDArray[np.uint16]:
    with av.open(str(path)) as container:
        return np.asarray(next(container.decode(video=0)).to_ndarray(), np.uint16)


@pytest.mark.parametrize("extra", [{}, {"gamma": 2.2}, {"values": "raw"}], ids=["plain", "gamma", "raw"])
def test_far_white_is_exactly_one_minus_near_white_in_every_output(bundled, clip, extra):
    names = ("npz", "exr", "png", "tiff", "depth.mp4")
    near = run(bundled, clip, *names, folder="near", polarity="near-white", depth_codec="ffv1", **extra)
    far = run(bundled, clip, *names, folder="far", polarity="far-white", depth_codec="ffv1", **extra)
    with np.load(near / "clip.npz") as one, np.load(far / "clip.npz") as other:
        depth = one["depth"]
        np.testing.assert_array_equal(other["depth"], 1 - depth)
    for index, (one, other) in enumerate(zip(frames_of(near, ".exr"), frames_of(far, ".exr"), strict=True)):
        np.testing.assert_array_equal(OpenEXR.File(str(one)).channels()["Z"].pixels, depth[index])
        np.testing.assert_array_equal(OpenEXR.File(str(other)).channels()["Z"].pixels, 1 - depth[index])
    codes = np.round(depth * 65535)
    for suffix in (".png", ".tiff"):
        for index, (one, other) in enumerate(zip(frames_of(near, suffix), frames_of(far, suffix), strict=True)):
            np.testing.assert_array_equal(read_grey(one), codes[index])
            np.testing.assert_array_equal(read_grey(other), 65535 - read_grey(one))
    size = size_of(depth)
    np.testing.assert_array_equal(read_by_pyav(near / "clip_depth.mkv", *size, 16) * 65535, codes)
    np.testing.assert_array_equal(read_by_pyav(far / "clip_depth.mkv", *size, 16) * 65535, 65535 - codes)


@pytest.mark.parametrize("name", CODECS)
def test_the_video_of_a_run_is_its_depth_with_its_rate_and_sound(bundled, clip, name):
    folder = run(bundled, clip, "depth.mp4", "vis.mp4", "input.mp4", "npz", depth_codec=name, audio=True)
    suffix = {"h264": "mov", "hevc": "mov", "ffv1": "mkv", "prores": "mov", "av1": "mkv"}[name]
    assert {path.name for path in folder.iterdir()} == {
        f"clip_depth.{suffix}",
        "clip_vis.mov",
        "clip_input.mov",
        "clip.npz",
        "clip.json",
    }
    with np.load(folder / "clip.npz") as file:
        depth = file["depth"]
    stored, bits = STORED[name]
    path = folder / f"clip_depth.{suffix}"
    found = read_by_pyav(path, *size_of(depth), bits)
    assert np.abs(found - depth).mean() < {"h264": 0.02}.get(name, MEAN_ERROR[name] * 3)
    np.testing.assert_array_equal(read_by_ffmpeg(path, *size_of(depth), stored, bits), found)
    for each in (path, folder / "clip_vis.mov", folder / "clip_input.mov"):
        assert probe(each).timeline.fps == 24
        copied = packets_of(each)
        assert copied == packets_of(clip)[: len(copied)]
        assert 0.5 <= sum(map(len, copied)) / (48000 * 4) < 0.53  # half a second, of 16 bits and two channels
        assert abs(start_of_sound(each)) < 0.002


@pytest.mark.parametrize("preset", EXR_PRESETS)
def test_a_preset_has_its_own_polarity_unless_one_is_asked_for(bundled, clip, preset):
    folder = run(bundled, clip, "exr", "npz", exr=preset, exr_type="half", exr_compression="piz")
    with np.load(folder / "clip.npz") as file:
        depth = file["depth"]
    if EXR_PRESETS[preset].is_far_white:
        depth = 1 - depth
    for path, frame in zip(frames_of(folder, ".exr"), depth, strict=True):
        for channel in OpenEXR.File(str(path), separate_channels=True).channels().values():
            np.testing.assert_array_equal(channel.pixels, frame.astype(np.float16))
    folder = run(bundled, clip, "exr", exr=preset, polarity="near-white", overwrite=True)
    first = OpenEXR.File(str(frames_of(folder, ".exr")[0]), separate_channels=True).channels()
    assert np.abs(first[EXR_PRESETS[preset].channels[0]].pixels - file_depth(folder)[0]).max() == 0


def file_depth(folder: Path) -> NDArray[np.float32]:
    with np.load(folder / "clip.npz") as file:
        return np.asarray(file["depth"])


def test_exr_files_of_a_run_carry_rate_and_time(bundled, clip):
    folder = run(bundled, clip, "exr", start_number=1001)
    paths = frames_of(folder, ".exr")
    assert [path.stem for path in paths] == [f"frame_{number}" for number in range(1001, 1013)]
    for number, path in enumerate(paths):
        header = OpenEXR.File(str(path), header_only=True).header()
        assert header["framesPerSecond"] == 24
        assert (header["timeCode"].seconds, header["timeCode"].frame) == (0, number)


def test_numbers_of_frames_sort_and_those_of_an_earlier_run_go(bundled, clip):
    folder = run(bundled, clip, "png", start_number=9995)
    assert [path.stem for path in frames_of(folder, ".png")] == [f"frame_{n:05}" for n in range(9995, 10007)]
    run(bundled, clip, "png", padding=6)
    assert [path.stem for path in frames_of(folder, ".png")] == [f"frame_{n:06}" for n in range(12)]
    run(bundled, clip, "png")
    assert [path.stem for path in frames_of(folder, ".png")] == [f"frame_{n:04}" for n in range(12)]


def test_a_file_in_another_container_stays_known_as_written_by_us(bundled, clip):
    folder = run(bundled, clip, "depth.mp4", depth_codec="ffv1")
    run(bundled, clip, "depth.mp4", depth_codec="prores")
    run(bundled, clip, "depth.mp4", depth_codec="ffv1")
    assert {path.name for path in folder.iterdir()} == {"clip_depth.mkv", "clip_depth.mov", "clip.json"}


def test_what_is_to_be_known_of_the_files_is_said_before_work(bundled, clip):
    heard: list[Any] = []
    outputs = Outputs(("depth.mp4",), size="97x63", audio=True, upscale="bilinear")
    options = (Sampling(1, window_size=16, overlap=5), Source(6, max_res=64), outputs, "out")
    Job(bundled, clip, *options, listener=heard.append).run()
    notes = next(event.notes for event in heard if isinstance(event, Planned))
    assert "97x63 is odd: H.264 is stored as yuv444p, which some players do not show" in notes
    assert "clip_depth.mov, since MP4 does not hold its sound, pcm_s16le" in notes
    with av.open("out/clip_depth.mov") as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.pix_fmt) == (63, 97, "yuv444p")


def test_a_codec_that_cannot_be_written_is_refused_before_work(bundled, clip, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"prores_ks"})
    with pytest.raises(UserError, match="has no ProRes 4444 encoder"):
        run(bundled, clip, "depth.mp4", depth_codec="prores")
    assert not Path("out").exists()


def test_colours_and_dither_of_a_run(bundled, clip):
    folder = run(bundled, clip, "vis.mp4", "depth.mp4", "npz", colormap="turbo", dither=True)
    depth = file_depth(folder)
    expected = np.stack([coloured(frame, "turbo", dither=True) for frame in depth]).astype(int)
    assert np.abs(decode(folder / "clip_vis.mp4") - expected).mean() < 6
    plain = run(bundled, clip, "depth.mp4", folder="plain")
    dithered, cut = (read_by_pyav(each / "clip_depth.mp4", *size_of(depth), 8) for each in (folder, plain))
    # Without it depth is cut down to steps, by half of one on average.
    assert abs((dithered - depth).mean()) < 0.5 * abs((cut - depth).mean())


def test_a_killed_run_gives_the_bytes_of_a_whole_one_in_every_format(bundled, clip):
    names = ("depth.mp4", "vis.mp4", "input.mp4", "exr", "tiff")
    for codec in (name for name, there in HAS_ENCODER.items() if there):
        whole = run(bundled, clip, *names, folder=f"whole-{codec}", depth_codec=codec, audio=True, exr="nuke")
        outputs = Outputs(names, depth_codec=codec, audio=True, exr="nuke")

        def fail(event: Any) -> None:
            if isinstance(event, Progressed) and event.stage == "write":
                raise KeyboardInterrupt

        options = (Sampling(1, window_size=16, overlap=5), Source(12, max_res=64), outputs, f"cut-{codec}")
        with pytest.raises(KeyboardInterrupt):
            Job(bundled, clip, *options, listener=fail).run()
        Job(bundled, clip, *options).run()
        for path in sorted(whole.rglob("*")):
            if path.is_file() and path.suffix != ".json":
                assert path.read_bytes() == Path(f"cut-{codec}", path.relative_to(whole)).read_bytes(), path
