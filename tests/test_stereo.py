"""Views by depth: exact shifts, who is in front, holes and what fills them; files of every mode, and iw3's folder."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from dc_rt import DepthCrafter, Job, Sampling, Source
from dc_rt.errors import UserError
from dc_rt.media import probe, read_frames
from dc_rt.media.audio import AudioPackets
from dc_rt.media.iw3 import config
from dc_rt.media.results import Result, ResultFrame
from dc_rt.media.stereo import StereoWarper, View, anaglyph, halved
from dc_rt.options import STEREO_MODES, Outputs
from dc_rt.outputs import all_outputs
from media_helpers import decode, moving_gradient, spoilt, write_clip, write_clip_with_sound

HEIGHT, WIDTH = 150, 200  # more than one band of rows, and no whole number of them


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def depth(value: float) -> NDArray[np.float32]:
    return np.full((HEIGHT, WIDTH), value, np.float32)


def views(
    image: NDArray[np.uint8], depth: NDArray[np.float32], disparity: float, convergence: float = 0.5
) -> tuple[View, View]:
    with StereoWarper(disparity, convergence) as warper:
        return warper(image, depth)


@pytest.mark.parametrize(("value", "shift"), [(1.0, 5), (0.75, 3), (0.25, -3), (0.0, -5), (0.5, 0)])
def test_constant_depth_is_an_exact_shift_outside_the_holes(value: float, shift: int) -> None:
    # 10 % of 200 pixels: 20 between the nearest and the farthest, 10 of them an eye's.
    image = picture()
    left, right = views(image, depth(value), 10.0 if value != 0.75 and value != 0.25 else 12.0)
    for view, moved in (left, shift), (right, -shift):
        expected = np.zeros_like(view.holes)
        expected[:, :moved] = moved > 0
        expected[:, WIDTH + moved :] = moved < 0
        assert (view.holes == expected).all()
        assert (view.image[~view.holes] == np.roll(image, moved, axis=1)[~view.holes]).all()


def test_depth_at_the_convergence_is_seen_by_both_eyes_as_it_is() -> None:
    image = picture()
    left, right = views(image, depth(0.3), 5.0, convergence=0.3)
    assert (left.image == image).all()
    assert (right.image == image).all()
    assert not left.holes.any()
    assert not right.holes.any()


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = picture()
    left, _ = views(image, depth(1.0), 0.5)  # one pixel of 200, half of it to each side of 0.5, half of that an eye's
    quarter = 0.25
    expected = image[:, :-1] * quarter + image[:, 1:] * (1 - quarter)
    assert np.abs(left.image[:, 1:].astype(float) - expected).max() <= 0.51


def by_hand(shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of every place of a row of the left view the x that is seen there, by looking at all of them; -1 of holes."""
    seen = np.full(len(shift), -1)
    for place in range(len(shift)):
        there = [x for x in range(len(shift)) if x + shift[x] == place]
        if there:
            seen[place] = max(there, key=lambda x: shift[x])
    return seen


def test_what_is_nearer_is_in_front_of_what_is_farther() -> None:
    # Objects of whole-pixel shifts at random places, some over others, which a search through all of a row finds.
    rng = np.random.default_rng(3)
    steps = np.zeros((HEIGHT, WIDTH), np.int64)
    for _ in range(14):
        top, first = rng.integers(0, HEIGHT - 40), rng.integers(0, WIDTH - 30)
        steps[top : top + 40, first : first + rng.integers(8, 30)] = rng.integers(-10, 11)
    image = picture(1)
    left, right = views(image, (steps / 20 + 0.5).astype(np.float32), 20.0)
    # Edges between steps of no more than a pixel are surfaces that bend, whose colours are mixed.
    for view, moved, source in (left, steps, image), (right, steps[:, ::-1], image[:, ::-1]):
        found, holes = (view.image, view.holes) if source is image else (view.image[:, ::-1], view.holes[:, ::-1])
        for row in range(0, HEIGHT, 7):
            # Vertical neighbours may move an edge where it is a ramp; these are none.
            seen = by_hand(moved[row])
            near_edge = np.abs(np.diff(moved[row], prepend=moved[row, :1])) == 1
            if near_edge.any():
                continue
            assert ((seen < 0) == holes[row]).all()
            assert (found[row, seen >= 0] == source[row, seen[seen >= 0]]).all()


@pytest.mark.parametrize("scan", ["left to right", "right to left"])
def test_a_front_object_hides_the_background_on_both_its_sides(scan: str) -> None:
    front = slice(80, 120)
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[:, front] = 200
    near = depth(0.0)
    near[:, front] = 1.0
    if scan == "right to left":
        image, near = image[:, ::-1], near[:, ::-1]
    for view, moved in zip(views(image, near, 10.0), (10, -10), strict=True):
        columns = np.arange(WIDTH)[(image[0, :, 0] == 200)]
        bright = view.image[..., 0] == 200
        assert (bright.sum(axis=1) == 40).all()
        assert bright[:, columns + moved // 2].all()  # by 5: it is half of all disparity in front of the screen


def test_holes_are_filled_from_behind() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[:, 80:120] = 200
    near = depth(0.2)
    near[:, 80:120] = 0.9
    for view in views(image, near, 20.0):
        assert view.holes[:, 40:160].any()
        assert (view.image[view.holes] == 40).all()


def test_a_blurred_edge_leaves_no_pixels_between_near_and_far() -> None:
    # As upsampling leaves it: a ramp over 4 pixels. Stretched, they would be drawn out over the hole.
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[:, 100:] = 200
    ramp = np.interp(np.arange(WIDTH), [98, 102], [0.1, 0.9]).astype(np.float32)
    left, _ = views(image, np.broadcast_to(ramp, (HEIGHT, WIDTH)), 20.0)
    hole = left.holes[0]
    assert 14 <= hole[60:140].sum() <= 16  # 0.8 of the 20 pixels that an eye has, all in one place
    assert np.diff(np.flatnonzero(hole[60:140])).max() == 1
    assert set(np.unique(left.image[:, 60:140])) <= {40, 200}


def test_a_slanted_surface_is_stretched_and_has_no_holes() -> None:
    slope = np.broadcast_to(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, WIDTH))
    image = np.repeat((np.arange(WIDTH) * 255 / WIDTH).astype(np.uint8)[None, :, None], 3, axis=2)
    image = np.ascontiguousarray(np.broadcast_to(image, (HEIGHT, WIDTH, 3)))
    left, right = views(image, slope, 10.0)
    inside = slice(12, WIDTH - 12)
    for view in left, right:
        assert not view.holes[:, inside].any()
        assert (np.diff(view.image[:, inside, 0].astype(int), axis=1) >= 0).all()


def test_views_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    rough = rng.random((HEIGHT, WIDTH), dtype=np.float32)
    image = picture(2)
    several = views(image, rough, 8.0)
    monkeypatch.setattr("dc_rt.media.stereo.num_cores", lambda: 1)
    for one, other in zip(views(image, rough, 8.0), several, strict=True):
        assert (one.image == other.image).all()
        assert (one.holes == other.holes).all()


def test_the_right_view_is_the_left_one_of_the_mirrored_picture() -> None:
    rng = np.random.default_rng(6)
    rough, image = rng.random((HEIGHT, WIDTH), dtype=np.float32), picture(4)
    _, right = views(image, rough, 6.0)
    left, _ = views(image[:, ::-1], rough[:, ::-1], 6.0)
    assert (right.image == left.image[:, ::-1]).all()


def test_a_row_of_which_nothing_is_seen_is_still_filled() -> None:
    left, _ = views(picture(), depth(1.0), 500.0)
    assert left.holes.all()
    assert left.image.shape == (HEIGHT, WIDTH, 3)


def test_half_the_width_is_the_mean_of_two_columns() -> None:
    image = picture(0, 4, 7)
    half = halved(image)
    assert half.shape == (4, 4, 3)
    assert (half[:, 0] == (image[:, 0].astype(int) + image[:, 1] + 1) // 2).all()
    assert (half[:, 3] == image[:, 6]).all()


def test_an_anaglyph_shows_each_eye_its_own_view() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    for_left, for_right, both = anaglyph(white, black)[0, 0], anaglyph(black, white)[0, 0], anaglyph(white, white)[0, 0]
    assert for_left[0] > 240
    assert max(for_left[1:]) == 0
    assert for_right[0] == 0
    assert min(for_right[1:]) > 240
    assert (both >= 250).all()
    assert (anaglyph(black, black) == 0).all()


# Files

SIZE = (64, 96)
NUM_FRAMES = 6
SUFFIXES = {
    "sbs": ["_3D_LRF_Full_SBS.mp4"],
    "half-sbs": ["_3D_HSBS_LR.mp4"],
    "anaglyph": ["_anaglyph.mp4"],
    "rgbd": ["_RGBD.mp4"],
    "left+right": ["_left.mp4", "_right.mp4"],
}


def a_clip(path: Path, sound: bool = True) -> Path:
    frames = moving_gradient(NUM_FRAMES, *SIZE)
    return write_clip_with_sound(path, frames) if sound else write_clip(path, frames)


def slopes() -> NDArray[np.float32]:
    """Depth of a clip: near at the bottom, and a box in front of it."""
    depth = np.repeat(np.linspace(0, 0.6, SIZE[0], dtype=np.float32)[:, None], SIZE[1], axis=1)
    depth[20:44, 40:60] = 1.0
    return depth


def write(
    name: str,
    clip: Path,
    folder: Path,
    shots: tuple[int, ...] = (0,) * NUM_FRAMES,
    size: tuple[int, int] = SIZE,
    **options: Any,
) -> None:
    """Write one output of a clip with this depth, cut to `size`, as a run does."""
    outputs = Outputs((name,), **options)
    video = probe(clip)
    (row,) = outputs.rows
    depth, timeline = slopes()[: size[0], : size[1]], video.timeline
    with AudioPackets(video) as audio:
        result = Result(
            NUM_FRAMES, *size, *size, timeline, Fraction(1), (), video, outputs, audio.stream if audio else None
        )
        with row.open_writer()(folder / f"clip{row.suffix}", result) as writer:
            for index, image in enumerate(read_frames(video, *size)):
                packets = audio.until(timeline.duration if index + 1 == NUM_FRAMES else timeline.time(index + 1))
                time = timeline.time(index)
                shot = shots[index]
                writer.write(ResultFrame(index, index, time, depth, depth, depth, image, audio=packets, shot=shot))


def sounds(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("mode", STEREO_MODES)
def test_every_mode_has_its_files_size_and_the_sound(mode: str, tmp_path: Path) -> None:
    clip = a_clip(tmp_path / "clip.mp4")
    (tmp_path / "out").mkdir()
    write("stereo", clip, tmp_path / "out", stereo=mode, disparity=10.0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"clip{each}" for each in SUFFIXES[mode]]
    assert [*all_outputs()["stereo"].suffixes[mode]] == SUFFIXES[mode]
    image, depth = next(read_frames(clip, *SIZE)), slopes()
    left, right = views(image, depth, 10.0)
    expected = {
        "sbs": [np.hstack([left.image, right.image])],
        "half-sbs": [np.hstack([halved(left.image), halved(right.image)])],
        "anaglyph": [anaglyph(left.image, right.image)],
        "rgbd": [np.hstack([image, np.repeat((depth * 255).astype(np.uint8)[..., None], 3, axis=2)])],
        "left+right": [left.image, right.image],
    }[mode]
    for suffix, picture in zip(SUFFIXES[mode], expected, strict=True):
        path = tmp_path / "out" / f"clip{suffix}"
        frames = decode(path)
        assert frames.shape == (NUM_FRAMES, *picture.shape)
        assert np.abs(frames[0].astype(int) - picture).mean() < 4  # H.264
        assert probe(path).timeline.time(3) == Fraction(3, 24)
        assert sounds(path) == sounds(clip)


@pytest.mark.parametrize("mode", STEREO_MODES)
def test_players_are_told_of_two_views_side_by_side(mode: str, tmp_path: Path) -> None:
    write("stereo", a_clip(tmp_path / "clip.mp4"), tmp_path, stereo=mode)
    with av.open(str(tmp_path / f"clip{SUFFIXES[mode][0]}")) as container:
        side_data: Any = next(container.decode(video=0)).side_data
        found = [bytes(data)[0] for data in side_data if data.type == Type.STEREO3D]
    side_by_side = 1  # AV_STEREO3D_SIDEBYSIDE
    assert found == ([side_by_side] if mode in ("sbs", "half-sbs") else [])


@pytest.mark.parametrize("mode", STEREO_MODES)
def test_odd_sizes_are_written_whole(mode: str, tmp_path: Path) -> None:
    height, width = 63, 95
    write("stereo", a_clip(tmp_path / "clip.mp4"), tmp_path, size=(height, width), stereo=mode)
    expected = {"sbs": 2 * width, "rgbd": 2 * width, "half-sbs": width + 1}.get(mode, width)
    for suffix in SUFFIXES[mode]:
        assert decode(tmp_path / f"clip{suffix}").shape == (NUM_FRAMES, height, expected, 3)


def test_pictures_too_wide_for_the_encoder_are_refused_before_any_work(bundled: DepthCrafter, tmp_path: Path) -> None:
    clip = a_clip(tmp_path / "clip.mp4")
    for name, size in ("stereo", "8200x64"), ("side-by-side", "5600x64"):
        with pytest.raises(UserError, match="takes no pictures of 16"):
            Job(bundled, clip, outputs=Outputs((name,), size=size), save_folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_clip_without_sound_is_written_too(tmp_path: Path) -> None:
    write("stereo", a_clip(tmp_path / "clip.mp4", sound=False), tmp_path)
    with av.open(str(tmp_path / f"clip{SUFFIXES['sbs'][0]}")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize(("name", "value"), [("disparity", 0.0), ("disparity", 21.0), ("convergence", 1.5)])
def test_what_no_eyes_can_fuse_is_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(UserError, match=f"{name} must be"):
        Outputs(**options)


# iw3


def test_a_folder_for_iw3_has_pictures_depth_sound_and_the_file_that_tells_of_them(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    clip = a_clip(tmp_path / "clip.mp4")
    write("iw3", clip, tmp_path, shots=(0, 0, 0, 1, 1, 2))
    folder = tmp_path / "clip_iw3"
    found = yaml.safe_load((folder / "iw3_export.yml").read_text(encoding="utf-8"))
    assert (found["type"], found["basename"], found["fps"]) == ("video", "clip", 24)
    assert (found["mapper"], found["skip_mapper"], found["skip_edge_dilation"]) == ("none", False, False)
    # iw3 compares these with the names of depth's files, without their suffix.
    assert found["user_data"]["scene_boundary"] == "frame_00000003,frame_00000005"
    rgb, depth = (sorted((folder / found[key]).iterdir()) for key in ("rgb_dir", "depth_dir"))
    assert [path.name for path in rgb] == [path.name for path in depth] == [f"frame_{i:08d}.png" for i in range(6)]
    for path, image in zip(rgb, read_frames(clip, *SIZE), strict=True):
        assert (decode(path)[0] == image).all()
    with av.open(str(depth[0])) as container:
        grey = next(container.decode(video=0)).to_ndarray(format="gray16le")
    assert (grey == np.round(slopes() * 65535)).all()
    assert sounds(folder / found["audio_file"]) == sounds(clip)


def test_frames_that_are_lost_are_stood_in_for_so_that_all_others_keep_their_times(
    bundled: DepthCrafter, tmp_path: Path
) -> None:
    whole = write_clip(tmp_path / "whole.mp4", moving_gradient(NUM_FRAMES, *SIZE), options={"g": "1"})
    clip = spoilt(whole, tmp_path / "clip.mp4", slice(2, 4))
    (tmp_path / "shots.csv").write_text("0\n4\n")
    source = Source(max_res=64, shots=str(tmp_path / "shots.csv"))
    outputs = Outputs(("iw3",), size="source")
    Job(bundled, clip, Sampling(steps=1, window_size=4, overlap=1), source, outputs, tmp_path / "out").run()
    folder = tmp_path / "out" / "clip_iw3"
    expected = [*read_frames(whole, *SIZE)]
    expected[2:4] = [expected[1]] * 2
    for kind in "rgb", "depth":
        assert sorted(path.name for path in (folder / kind).iterdir()) == [f"frame_{i:08d}.png" for i in range(6)]
    for index, image in enumerate(expected):
        assert (decode(folder / "rgb" / f"frame_{index:08d}.png")[0] == image).all()
    depth = [(folder / "depth" / f"frame_{index:08d}.png").read_bytes() for index in range(6)]
    assert depth[1] == depth[2] == depth[3] != depth[4]
    assert '"scene_boundary": "frame_00000004"' in (folder / "iw3_export.yml").read_text(encoding="utf-8")


def test_a_folder_for_iw3_of_a_clip_without_sound_names_none(tmp_path: Path) -> None:
    write("iw3", a_clip(tmp_path / "clip.mp4", sound=False), tmp_path)
    assert not list((tmp_path / "clip_iw3").glob("audio*"))
    assert "audio_file" not in (tmp_path / "clip_iw3" / "iw3_export.yml").read_text()


@pytest.mark.parametrize(
    ("fps", "written"), [(Fraction(25), "25"), (Fraction(30000, 1001), '"30000/1001"'), (Fraction(1, 3), '"1/3"')]
)
def test_rates_are_exact(fps: Fraction, written: str) -> None:
    assert f"\nfps: {written}\n" in config("a", fps)


def test_names_of_any_letters_are_text_in_the_file() -> None:
    yaml = pytest.importorskip("yaml")
    for name in ('it\'s "new": #1', "\u6df1\u5ea6", "a\\b", "- x"):
        assert yaml.safe_load(config(name, Fraction(25)))["basename"] == name
        assert json.loads(config(name, Fraction(25)).splitlines()[1].partition(": ")[2]) == name
