"""Results lie over what a player shows of a video: in time, in shape and frame by frame."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

from dc_rt import DepthCrafter, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.media import Damage, Timeline, VideoInfo, VideoWriter, probe, read_at_sizes, read_frames
from dc_rt.media.timeline import timeline_of
from dc_rt.media.write_video import fitting
from dc_rt.outputs import all_outputs
from job_helpers import choose, run_job
from media_helpers import moving_gradient, spoilt, with_matrix, write_clip, write_timed, write_without_edges

DATA = Path(__file__).parent / "data"
MILLISECOND = Fraction(1, 1000)
UNEVEN = [33 * i for i in range(12)] + [363 + 200 * (i + 1) for i in range(12)]
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
CHOSEN = {"max_res": 64, "steps": 1, "window_size": 16, "overlap": 4}


def quarters(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A picture with another grey in each quarter: turned and mirrored ones differ."""
    picture = np.zeros((height, width, 3), np.uint8)
    half = height // 2, width // 2
    picture[: half[0], : half[1]], picture[: half[0], half[1] :] = 40, 100
    picture[half[0] :, : half[1]], picture[half[0] :, half[1] :] = 160, 220
    return picture


def greys(picture: NDArray[np.uint8]) -> list[list[int]]:
    """The means of the picture's quarters, rounded to what `quarters` has."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    means = picture[:height, :width, 0].reshape(2, height // 2, 2, width // 2).mean((1, 3))
    return [[min((40, 100, 160, 220), key=lambda grey: abs(grey - mean)) for mean in row] for row in means]


def without_default_duration(path: Path) -> Path:
    """The Matroska file without what it states of its rate."""
    contents = path.read_bytes()
    at = contents.index(b"\x23\xe3\x83")
    size = 4 + (contents[at + 3] & 0x7F)
    void = b"\xec" + bytes([0x80 | (size - 2)]) + bytes(size - 2)
    path.write_bytes(contents[:at] + void + contents[at + size :])
    return path


def shown_times(path: Path) -> list[Fraction]:
    """When a player that follows the file's times shows its frames, in seconds from the first one's time."""
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def end_of(path: Path) -> float:
    """When a player is through with it, in seconds."""
    with av.open(str(path)) as container:
        return ((container.start_time or 0) + container.duration) / 1e6


@pytest.fixture(scope="module")
def nano() -> DepthCrafter:
    return DepthCrafter.load(BUNDLED)


def run(model: DepthCrafter, video: Path, folder: Path, **options: object) -> tuple[dict, list[str]]:
    """The record of a run with all outputs, and what it told."""
    chosen = choose(*all_outputs(), **{**CHOSEN, **options})
    told: list[str] = []
    run_job(model, video, folder, chosen, tell=told.append)
    return json.loads((folder / f"{video.stem}.json").read_text()), told


# Time


def timed_clips(folder: Path) -> dict[str, tuple[Path, list[Fraction], float]]:
    """By kind: a clip, when a player shows its frames, and for how long in all."""
    dropped = [i for i in range(48) if i % 8 < 5]
    edited = write_clip(folder / "whole.mp4", moving_gradient(30, 64, 96))
    one = write_clip(folder / "one.ts", moving_gradient(20, 64, 96), 25, options={"bf": "2"})
    (folder / "joined.ts").write_bytes(2 * one.read_bytes())
    uneven = [time * MILLISECOND for time in UNEVEN]
    kinds = {
        f"uneven.{suffix}": (write_timed(folder / f"uneven.{suffix}", UNEVEN, MILLISECOND, codec), uneven, 2.797)
        for suffix, codec in {"mkv": "libx264", "webm": "libvpx", "mp4": "libx264", "flv": "libx264"}.items()
    }
    for fps in (Fraction(30), Fraction(30000, 1001)):
        path = write_clip(folder / f"{float(fps):.0f}{fps.denominator}.mkv", moving_gradient(300, 64, 96), fps)
        kinds[f"no rate stated, {fps}"] = (
            without_default_duration(path),
            [i / fps for i in range(300)],
            float(300 / fps),
        )
    # Nothing in FLV says how long the last frame is shown: as long as those before it.
    kinds["uneven.flv"] = *kinds["uneven.flv"][:2], 2.963
    path = write_timed(folder / "dropped.avi", [*dropped, 47], Fraction(1, 24), "mpeg4")
    kinds["dropped.avi"] = path, [Fraction(i, 24) for i in [*dropped, 47]], 2.0
    path = write_timed(folder / "late.mp4", range(240, 264), Fraction(1, 24))
    kinds["late.mp4"] = path, [Fraction(i, 24) for i in range(24)], 1.0
    images = [Image.fromarray(frame) for frame in moving_gradient(6, 64, 96)]
    delays = [50, 50, 300, 50, 50, 50]
    images[0].save(folder / "uneven.gif", save_all=True, append_images=images[1:], duration=delays)
    kinds["uneven.gif"] = folder / "uneven.gif", [sum(delays[:i]) * MILLISECOND for i in range(6)], 0.55
    path = write_without_edges(folder / "edited.mp4", edited, hidden=7)
    kinds["edited.mp4"] = path, [Fraction(i, 24) for i in range(23)], 23 / 24
    kinds["joined.ts"] = folder / "joined.ts", [Fraction(i, 25) for i in range(40)], 40 / 25
    path = write_clip(folder / "pictures.avi", moving_gradient(30, 64, 96), 24, options={"bf": "3"})
    kinds["reordered.avi"] = path, [Fraction(i, 24) for i in range(30)], 30 / 24
    repeats = [Fraction(i, 24) for i in (0, 2, 4, 5, 7, 8, 10, 11)]
    kinds["repeated.ogv"] = DATA / "repeated_frames.ogv", repeats, 0.5
    path = write_clip(folder / "bare.h264", moving_gradient(30, 64, 96), 30, options={"bf": "2"})
    kinds["bare.h264"] = path, [Fraction(i, 30) for i in range(30)], 1.0
    return kinds


KINDS = (
    *(f"uneven.{suffix}" for suffix in ("mkv", "webm", "mp4", "flv", "gif")),
    *("no rate stated, 30", "no rate stated, 30000/1001", "dropped.avi", "late.mp4", "edited.mp4", "joined.ts"),
    *("reordered.avi", "repeated.ogv", "bare.h264"),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Fraction], float]]:
    return timed_clips(tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_the_times_that_a_player_shows_them_at(
    clips: dict[str, tuple[Path, list[Fraction], float]], kind: str
) -> None:
    path, times, seconds = clips[kind]
    source, damage = probe(path), Damage()
    numbers = [number for number, _ in read_at_sizes(source, [(64, 64)], damage=damage)]
    assert numbers == list(range(len(times)))
    assert not damage.is_any
    assert source.timeline.seconds(numbers) == pytest.approx([float(time) for time in times], abs=6e-4)
    assert float(source.timeline.duration) == pytest.approx(float(seconds), abs=0.006)


@pytest.mark.parametrize("kind", ["uneven.mkv", "uneven.gif", "dropped.avi", "no rate stated, 30000/1001"])
@pytest.mark.parametrize("target_fps", [-1, 5])
def test_results_are_shown_when_the_source_is(
    nano: DepthCrafter,
    clips: dict[str, tuple[Path, list[Fraction], float]],
    kind: str,
    target_fps: float,
    tmp_path: Path,
) -> None:
    path, times, seconds = clips[kind]
    record, _ = run(nano, path, tmp_path, target_fps=target_fps, process_length=20)
    taken = times[:: record["result"]["stride"]][:20]
    end = ([*times, Fraction(seconds)][:: record["result"]["stride"]][20:] or [Fraction(seconds)])[0]
    assert (record["result"]["stride"] > 1) == (target_fps > 0)
    assert record["times"] == pytest.approx([float(time) for time in taken], abs=6e-4)
    assert record["result"]["seconds"] == pytest.approx(float(end), abs=0.002)
    for kind in ("depth", "vis", "input"):
        video = tmp_path / f"{path.stem}_{kind}.mp4"
        assert [float(time) for time in shown_times(video)] == pytest.approx(record["times"], abs=1e-6)
        assert end_of(video) == pytest.approx(float(end), abs=0.002)
    assert len(np.load(tmp_path / f"{path.stem}.npz")["depth"]) == len(taken)
    for suffix in ("exr", "png"):
        assert len(list((tmp_path / path.stem).glob(f"*.{suffix}"))) == len(taken)


def test_a_constant_rate_stays_exactly_constant(
    nano: DepthCrafter, clips: dict[str, tuple[Path, list[Fraction], float]], tmp_path: Path
) -> None:
    path, times, _ = clips["no rate stated, 30000/1001"]
    run(nano, path, tmp_path, process_length=40)
    assert shown_times(tmp_path / f"{path.stem}_depth.mp4") == times[:40]
    assert probe(tmp_path / f"{path.stem}_depth.mp4").fps == Fraction(30000, 1001)


def test_a_rate_is_found_in_rounded_times_and_gaps_are_kept() -> None:
    rng = np.random.default_rng(0)
    for fps in (Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(144), Fraction(15)):
        for tick in (MILLISECOND, Fraction(1, 90000)):
            numbers = np.flatnonzero(rng.random(5000) > 0.2)
            numbers -= numbers[0]
            stamps = 777 + np.rint(numbers / float(fps * tick)).astype(np.int64)
            timeline = timeline_of(stamps, 0, tick, [None, Fraction(1000)])
            assert timeline.is_constant
            assert timeline.fps == fps
            assert np.array_equal(timeline.times, numbers)


def test_times_that_are_at_no_rate_are_kept_as_they_are() -> None:
    steps = np.random.default_rng(1).integers(20, 60, 1000)
    stamps = np.cumsum(steps)
    timeline = timeline_of(stamps, 40, MILLISECOND, [Fraction(30), Fraction(1000)])
    assert not timeline.is_constant
    assert np.array_equal(timeline.times, stamps - stamps[0])
    assert timeline.duration == (stamps[-1] - stamps[0] + 40) * MILLISECOND
    assert timeline.fps == 1000 / timeline.duration
    thinned = timeline.every(3, 100)
    assert np.array_equal(thinned.times, timeline.times[:300:3])
    assert thinned.end == timeline.times[300]


def test_the_frame_after_the_last_one_taken_ends_it() -> None:
    timeline = Timeline.even(100, Fraction(30)).every(4, 10)
    assert (timeline.tick, timeline.end, timeline.fps) == (Fraction(4, 30), 10, Fraction(30, 4))


# Shape


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), [[40, 100], [160, 220]]),
        ((-1, 0, 0, 1), [[100, 40], [220, 160]]),
        ((1, 0, 0, -1), [[160, 220], [40, 100]]),
        ((-1, 0, 0, -1), [[220, 160], [100, 40]]),
        ((0, 1, -1, 0), [[160, 40], [220, 100]]),
        ((0, -1, 1, 0), [[100, 220], [40, 160]]),
        ((0, 1, 1, 0), [[40, 160], [100, 220]]),
        ((0, -1, -1, 0), [[220, 100], [160, 40]]),
    ],
)
def test_a_display_matrix_turns_and_mirrors(
    tmp_path: Path, matrix: tuple[int, int, int, int], expected: list[list[int]]
) -> None:
    clip = write_timed(tmp_path / "clip.mp4", range(3), Fraction(1, 24), picture=quarters())
    info = probe(with_matrix(clip, *matrix))
    turned = matrix[0] == 0
    assert (info.height, info.width) == ((160, 120) if turned else (120, 160))
    assert info.aspect == (Fraction(3, 4) if turned else Fraction(4, 3))
    frame = next(iter(read_frames(clip, info.height, info.width)))
    assert greys(frame) == expected
    assert info.notes == ()


def test_a_turn_by_no_right_angle_is_told(tmp_path: Path) -> None:
    clip = write_timed(tmp_path / "clip.mp4", range(3), Fraction(1, 24), picture=quarters())
    info = probe(with_matrix(clip, 0.94, 0.34, -0.34, 0.94))
    assert info.notes == ("turned by an angle that is no multiple of 90 degrees, read at the nearest",)
    assert greys(next(iter(read_frames(clip, 120, 160)))) == [[40, 100], [160, 220]]


EXIF = {
    1: [[40, 100], [160, 220]],
    2: [[100, 40], [220, 160]],
    3: [[220, 160], [100, 40]],
    4: [[160, 220], [40, 100]],
    5: [[40, 160], [100, 220]],
    6: [[160, 40], [220, 100]],
    7: [[220, 100], [160, 40]],
    8: [[100, 220], [40, 160]],
}


def write_photo(path: Path, picture: NDArray[np.uint8], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(np.ascontiguousarray(picture)).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", EXIF)
def test_photos_are_read_as_their_exif_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    for i in range(2):
        write_photo(tmp_path / f"{i}.{suffix}", quarters(), orientation)
    info = probe(tmp_path)
    assert (info.height, info.width) == ((160, 120) if orientation > 4 else (120, 160))
    frames = list(read_frames(tmp_path, info.height, info.width))
    assert [greys(frame) for frame in frames] == [EXIF[orientation]] * 2


def test_photos_of_a_turned_and_an_upright_camera_go_together(tmp_path: Path) -> None:
    write_photo(tmp_path / "0.jpg", quarters(), 1)
    write_photo(tmp_path / "1.jpg", np.rot90(quarters()), 6)
    info = probe(tmp_path)
    assert (info.height, info.width) == (120, 160)
    assert [greys(frame) for frame in read_frames(tmp_path, 120, 160)] == [EXIF[1]] * 2


@pytest.mark.parametrize(
    ("sample_aspect_ratio", "shown"), [(Fraction(2), (120, 320)), (Fraction(8, 9), (120, 142)), (None, (120, 160))]
)
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_count(
    tmp_path: Path, sample_aspect_ratio: Fraction | None, shown: tuple[int, int], turned: bool
) -> None:
    path = tmp_path / "clip.mp4"
    write_timed(path, range(3), Fraction(1, 24), sample_aspect_ratio=sample_aspect_ratio, picture=quarters())
    if turned:
        with_matrix(path, 0, 1, -1, 0)
    info = probe(path)
    aspect = Fraction(160, 120) * (sample_aspect_ratio or 1)
    assert (info.height, info.width) == (shown[::-1] if turned else shown)
    assert info.aspect == (1 / aspect if turned else aspect)
    assert any("pixels of" in note for note in info.notes) == (sample_aspect_ratio is not None)


def test_images_that_state_pixels_of_another_shape_are_told(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "0.png", dpi=(72, 144))
    info = probe(tmp_path)
    assert (info.height, info.width, info.aspect) == (120, 160, Fraction(4, 3))
    assert info.notes == ("of pixels that are said not to be square, read as if they were",)


@pytest.mark.parametrize("size", [(480, 854), (120, 160), (97, 131), (64, 128)])
def test_results_lie_exactly_over_the_source(nano: DepthCrafter, tmp_path: Path, size: tuple[int, int]) -> None:
    clip = write_clip(tmp_path / "clip.mkv", moving_gradient(2, *size), codec="ffv1", pixel_format="bgr0")
    record, _ = run(nano, clip, tmp_path / "out", max_res=192)
    shown = Fraction(size[1], size[0])
    height, width = record["result"]["height"], record["result"]["width"]
    expected = shown * height / width
    for kind in ("depth", "vis", "input"):
        with av.open(str(tmp_path / "out" / f"clip_{kind}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.height, stream.width) == (height, width)
            assert float(stream.sample_aspect_ratio or 1) == pytest.approx(float(expected), rel=1e-4)
            next(container.decode(stream))
            assert float(stream.codec_context.sample_aspect_ratio or 1) == pytest.approx(float(expected), rel=1e-4)
        assert float(probe(tmp_path / "out" / f"clip_{kind}.mp4").aspect) == pytest.approx(float(shown), rel=1e-4)
    assert Fraction(record["result"]["sample_aspect_ratio"].replace(":", "/")) == expected
    assert not {"aspect", "dpi"} & Image.open(tmp_path / "out" / "clip" / "frame_0000.png").info.keys()
    header = OpenEXR.File(str(tmp_path / "out" / "clip" / "frame_0000.exr")).header()
    assert header["pixelAspectRatio"] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("color_range", "expected"), [(1, [0, 128, 255]), (2, [16, 126, 235])])
def test_grey_is_read_in_its_range(tmp_path: Path, color_range: int, expected: list[int]) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "gray"
        stream.color_range = color_range
        shades = np.repeat(np.array([[16, 126, 235]], np.uint8), 32, axis=1).repeat(64, axis=0)
        frame = av.VideoFrame.from_ndarray(shades, format="gray")
        frame.color_range = color_range
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (read,) = read_frames(path, 64, 96)
    assert read[32, [16, 48, 80], 0].tolist() == expected


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "whole.mp4"
    return write_clip(path, moving_gradient(30, 64, 96), 30, options={"bf": "0", "g": "10"})


@pytest.mark.parametrize("which", [slice(-2, -1), slice(12, 14), slice(3, 9), slice(-1, None), slice(0, 10)])
def test_lost_frames_are_counted_and_leave_the_others_where_they_are(
    nano: DepthCrafter, whole: Path, tmp_path: Path, which: slice
) -> None:
    lost = set(range(30)[which])
    record, told = run(nano, spoilt(whole, tmp_path / "clip.mp4", which), tmp_path / "out")
    kept = [i for i in range(30) if i not in lost]
    source = record["source"]
    assert (source["num_frames"], source["frames_lost"], source["decode_errors"]) == (30, len(lost), len(lost))
    assert record["times"] == pytest.approx([i / 30 for i in kept])
    assert told == [f"damaged: {len(lost)} of 30 frames could not be decoded; the others keep their times"]
    assert told[0] in source["notes"]
    for kind in ("depth", "vis", "input"):
        assert shown_times(tmp_path / "out" / f"clip_{kind}.mp4") == [Fraction(i - kept[0], 30) for i in kept]
    assert end_of(tmp_path / "out" / "clip_depth.mp4") == pytest.approx(1.0, abs=0.002)


def test_a_lost_first_keyframe_moves_no_other_frame(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", moving_gradient(80, 64, 96), 25, options={"bf": "2", "g": "30"})
    damage = Damage()
    numbers = [
        n for n, _ in read_at_sizes(spoilt(whole, tmp_path / "clip.mp4", slice(0, 1)), [(64, 96)], damage=damage)
    ]
    assert numbers == list(range(30, 80))
    assert (damage.num_lost, damage.num_frames) == (30, 80)


def test_an_edit_list_may_hide_more_frames_than_are_tried(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(20, 60, 90)).tolist()
    whole = write_timed(tmp_path / "whole.mp4", times, MILLISECOND, options={"bf": "3"})
    path = tmp_path / "edited.mp4"
    with av.open(str(whole)) as clip, av.open(str(path), "w") as container:
        stream = clip.streams.video[0]
        copy = container.add_stream_from_template(stream)
        shift = int((times[40] - times[0]) * MILLISECOND / stream.time_base)
        for packet in clip.demux(stream):
            if packet.dts is not None:
                packet.pts -= shift
                packet.dts -= shift
                packet.stream = copy
                container.mux(packet)
    info = probe(path)
    assert info.num_frames in (49, 50, 51)
    kept = times[-info.num_frames :]
    expected = [(time - kept[0]) / 1000 for time in kept]
    assert info.timeline.seconds(range(info.num_frames)) == pytest.approx(expected, abs=1e-3)


def test_frames_without_times_of_their_own_are_not_said_to_keep_them(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.avi", moving_gradient(30, 64, 96), 25, options={"bf": "2", "g": "10"})
    damage = Damage()
    list(read_frames(spoilt(whole, tmp_path / "clip.avi", slice(4, 5)), 64, 96, damage=damage))
    assert next(damage.describe()).endswith("could not be decoded; those behind them may be shown too early")


@pytest.mark.parametrize("pause", [60, 2400, 80000])
def test_a_long_pause_is_kept(tmp_path: Path, pause: int) -> None:
    times = [0, 33_000, 70_000, 70_000 + pause * 1_000_000]
    timeline = timeline_of(np.array(times), 40_000, Fraction(1, 1_000_000), [])
    with VideoWriter(tmp_path / "clip.mp4", timeline, 64, 64) as writer:
        for number, frame in enumerate(moving_gradient(4, 64, 64)):
            writer.write(frame, number)
    written = [float(time) for time in shown_times(tmp_path / "clip.mp4")]
    assert written == pytest.approx([time / 1e6 for time in times], abs=1e-4)


def test_a_pause_that_no_video_has_is_refused(tmp_path: Path) -> None:
    clip = write_timed(tmp_path / "clip.mkv", [0, 40, 80, 3 * 86_400_000], MILLISECOND)
    with pytest.raises(UserError, match="pause of more than a day between two frames"):
        probe(clip)


@pytest.mark.parametrize(
    "ratio", [Fraction(1131613191, 1131120016), Fraction(10**10), Fraction(1, 10**6), Fraction(4, 3)]
)
def test_a_sample_aspect_ratio_fits_into_sixteen_bits(ratio: Fraction) -> None:
    fitted = fitting(ratio)
    assert 1 <= fitted.numerator <= 65535
    assert 1 <= fitted.denominator <= 65535
    if Fraction(1, 65535) <= ratio <= 65535:
        assert float(fitted) == pytest.approx(float(ratio), rel=1e-6)


def test_a_title_is_no_encryption(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Midrmichael, encverted"
        stream = container.add_stream("libx264", rate=24)
        stream.height = stream.width = 64
        frame = av.VideoFrame.from_ndarray(moving_gradient(1, 64, 64)[0], format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert probe(path).num_frames == 1


@pytest.mark.parametrize("contents", [b"RIFF\x10\0\0\0WEBPVP8X", b"RIFF\0\1\0\0WEBPEXIF\x20\0\0\0II+\0" + b"\xff" * 40])
def test_a_photo_that_is_cut_off_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "0.webp").write_bytes(contents)
    with pytest.raises(UserError, match=r"0\.webp is not an image"):
        probe(tmp_path)


def test_every_n_th_frame_is_that_of_the_whole_video(whole: Path, tmp_path: Path) -> None:
    clip = spoilt(whole, tmp_path / "clip.mp4", slice(6, 8))
    every_third = {n: frame for n, (frame,) in read_at_sizes(clip, [(64, 96)], stride=3)}
    expected = {n: frame for n, (frame,) in read_at_sizes(whole, [(64, 96)], stride=3)}
    assert list(every_third) == [0, 1, 3, 4, 5, 6, 7, 8, 9]  # frame 6 is lost, and no other takes its place
    for number in (0, 1, 4, 5, 6, 7, 8, 9):  # frame 9 refers to the lost ones
        assert np.array_equal(every_third[number], expected[number])


COUNT = """
import os, sys
if len(sys.argv) > 2:
    os.sched_setaffinity(0, {0})
from dc_rt.media import Damage, read_at_sizes
damage = Damage()
print([n for n, _ in read_at_sizes(sys.argv[1], [(64, 64)], damage=damage)], damage)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be taken away on this system")
@pytest.mark.parametrize("which", [slice(-2, -1), slice(-4, None), slice(12, 14), slice(1, None)])
def test_what_is_lost_does_not_depend_on_the_number_of_threads(whole: Path, tmp_path: Path, which: slice) -> None:
    clip = spoilt(whole, tmp_path / "clip.mp4", which)
    counts = [
        subprocess.run([sys.executable, "-c", COUNT, clip, *one], capture_output=True, text=True, check=True).stdout
        for one in ([], ["one"])
    ]
    assert counts[0] == counts[1]
    assert f"num_lost={len(range(30)[which])}" in counts[0]


@pytest.mark.parametrize("which", [slice(1, None), slice(2, 20)])
def test_a_video_of_which_most_cannot_be_decoded_is_refused_before_anything_is_denoised(
    nano: DepthCrafter, whole: Path, tmp_path: Path, which: slice
) -> None:
    clip = spoilt(whole, tmp_path / "clip.mp4", which)
    stages: list[str] = []
    with pytest.raises(
        UserError, match=r"Most of the first \d+ frames of .*clip\.mp4 cannot be decoded \(\d+ are lost"
    ):
        run_job(nano, clip, tmp_path / "out", choose(**CHOSEN), lambda stage, frames, seconds: stages.append(stage))
    assert set(stages) <= {"read", "clip_encoder"}
    assert not (tmp_path / "out").exists()


def test_an_encrypted_video_is_refused_with_the_cause(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(3, 64, 96))
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"encv"))
    with pytest.raises(UserError, match=r"clip\.mp4 is encrypted \(DRM\)"):
        probe(clip)
    clear = write_clip(tmp_path / "clear.mp4", moving_gradient(3, 64, 96), container_options=FRAGMENTED)
    assert probe(clear).num_frames == 3
    # Another index of the same file, as where advertisements are put before what is protected.
    clear.write_bytes(clear.read_bytes() + clip.read_bytes())
    with pytest.raises(UserError, match=r"clear\.mp4 is encrypted \(DRM\)"):
        probe(clear)


# Frames, streams and pictures


@pytest.mark.parametrize("name", ["hidden_frames_vp8.webm", "hidden_frames_vp9.nut"])
def test_frames_that_are_never_shown_are_no_frames(name: str) -> None:
    with av.open(str(DATA / name)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > 60
    damage = Damage()
    info = probe(DATA / name)
    assert len(list(read_frames(info, 64, 96, damage=damage))) == info.num_frames == 60
    assert float(info.fps) == pytest.approx(30, rel=2e-4)
    assert (info.notes, damage.is_any) == ((), False)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_default_stream_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=fps) for fps in (24, 30)]
        for stream, size in zip(streams, (64, 128), strict=True):
            stream.height = stream.width = size
            stream.pix_fmt = "yuv420p"
        streams[0].disposition = Disposition(0)
        streams[1].disposition = Disposition.default
        for i in range(10):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(
                    moving_gradient(1, stream.height, stream.width, i)[0], format="rgb24"
                )
                frame.pts, frame.time_base = i, 1 / Fraction(stream.average_rate or 1)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    info = probe(path)
    assert (info.height, info.width, info.fps) == (128, 128, 30)
    assert info.notes == ("2 video streams, of which the default one is read",)


def note_of(info: VideoInfo) -> str:
    (note,) = info.notes
    return note


def test_transparency_of_vp9_and_of_images_is_told(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.webm", moving_gradient(3, 64, 64), codec="libvpx-vp9", pixel_format="yuva420p")
    assert note_of(probe(clip)) == "transparent, read without its alpha channel"
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.dstack([quarters(), np.full((120, 160), 128, np.uint8)])).save(folder / f"{i}.png")
    assert note_of(probe(folder)) == "transparent, read without its alpha channel"
    Image.fromarray(quarters()).save(folder / "2.png")
    assert note_of(probe(folder)) == "2 of 3 images: transparent, read without its alpha channel"


def test_pages_and_animations_of_images_are_told(tmp_path: Path) -> None:
    pages = [Image.fromarray(quarters()) for _ in range(3)]
    pages[0].save(tmp_path / "0.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "1.tif")
    assert note_of(probe(tmp_path)) == "1 of 2 images: of several pages or frames, of which the first is read"
    (tmp_path / "1.tif").unlink()
    pages[1] = pages[1].rotate(180)
    pages[0].save(tmp_path / "2.png", save_all=True, append_images=pages[1:])
    assert note_of(probe(tmp_path)) == "of several pages or frames, of which the first is read"


def test_a_size_that_changes_in_the_middle_is_told(nano: DepthCrafter, tmp_path: Path) -> None:
    parts = [write_clip(tmp_path / f"{size}.ts", moving_gradient(10, size, size), 25) for size in (64, 128)]
    clip = tmp_path / "clip.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    record, told = run(nano, clip, tmp_path / "out")
    assert record["result"]["num_frames"] == 20
    assert told == ["the size changes in the middle: 10 frames were scaled to that of the first one"]


def test_a_bare_streams_rate_is_told(tmp_path: Path) -> None:
    for fps, told in ((30, "30"), (25, "an assumed 25")):
        clip = write_clip(tmp_path / f"{fps}.h264", moving_gradient(5, 64, 64), fps)
        assert note_of(probe(clip)) == f"a bare stream, which has no times: taken at {told} frames/s"


def test_an_avif_image_is_no_file_that_is_cut_short(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "photo.avif", quality=90)
    info = probe(tmp_path / "photo.avif")
    assert (info.num_frames, info.height, info.width) == (1, 120, 160)
    assert greys(next(iter(read_frames(info, 120, 160)))) == [[40, 100], [160, 220]]


def test_an_animated_webp_is_read_or_refused_with_the_cause(tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in moving_gradient(3, 64, 64)]
    frames[0].save(tmp_path / "clip.webp", save_all=True, append_images=frames[1:])
    for path in (tmp_path / "clip.webp", tmp_path):
        if int(av.__version__.split(".")[0]) < 19:  # whose FFmpeg has no decoder for it
            with pytest.raises(UserError, match=r"clip\.webp is an animated WebP"):
                probe(path)
        else:
            assert probe(path).num_frames == (1 if path.is_dir() else 3)
            assert any("of several pages or frames" in note for note in probe(path).notes) == path.is_dir()


def test_a_tiff_that_would_be_read_wrongly_is_refused_with_the_cause(tmp_path: Path) -> None:
    """FFmpeg makes a grey picture of it, and gives no error."""
    Image.fromarray(quarters()).save(tmp_path / "0.tif", compression="jpeg")
    with pytest.raises(UserError, match=r"0\.tif is a TIFF file compressed as JPEG, a kind that is not read here"):
        probe(tmp_path)
    Image.fromarray(quarters()).save(tmp_path / "0.tif", compression="tiff_lzw")
    assert greys(next(iter(read_frames(tmp_path, 120, 160)))) == [[40, 100], [160, 220]]


@pytest.mark.parametrize("orientation", EXIF)
def test_exif_of_a_webp_is_found_behind_what_jpeg_has_before_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    before = b"Exif\0\0"
    Image.fromarray(quarters()).save(tmp_path / "0.webp", exif=2 * before + exif.tobytes().removeprefix(before))
    info = probe(tmp_path)
    assert greys(next(iter(read_frames(info, info.height, info.width)))) == EXIF[orientation]


def test_the_alpha_channel_of_an_avif_is_told(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([quarters(), quarters()[..., 0]])).save(tmp_path / "photo.avif")
    assert note_of(probe(tmp_path / "photo.avif")) == "transparent, read without its alpha channel"


def test_formats_that_mark_no_keyframe_are_read_from_the_start(tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in moving_gradient(4, 64, 64)]
    frames[0].save(tmp_path / "clip.png", save_all=True, append_images=frames[1:], duration=100)
    info = probe(tmp_path / "clip.png")
    assert (info.num_frames, info.fps) == (4, 10)
    assert len(list(read_frames(info, 64, 64))) == 4
