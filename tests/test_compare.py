"""Two results compared: figures that are known, files of every kind, the video, and what cannot be compared."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dc_rt.compare import compare, open_pair, signed_colours
from dc_rt.errors import UserError
from dc_rt.formats import EXR_PRESETS
from dc_rt.media import ExrWriter, NpzWriter, PngWriter, VideoWriter, probe
from media_helpers import decode, moving_gradient, with_matrix, write_clip

FRAMES, HEIGHT, WIDTH = 5, 48, 64


def depth(seed: int = 0) -> NDArray[np.float32]:
    return np.asarray(moving_gradient(FRAMES, HEIGHT, WIDTH, seed)[..., 0] / 255, np.float32)


def write_npz(path: Path, depth: NDArray[np.float32]) -> Path:
    with NpzWriter(path, depth.shape) as writer:
        for frame in depth:
            writer.write(frame)
    return path


def test_a_result_does_not_differ_from_itself(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", depth())
    found = compare(*open_pair(path, path))
    assert (found.mean, found.largest, found.mean_aligned, found.relative) == pytest.approx((0, 0, 0, 0), abs=1e-12)
    assert (found.scale, found.shift, found.correlation) == pytest.approx((1, 0, 1))
    assert found.flicker[0] == found.flicker[1]


def test_figures_are_those_of_whole_arrays(tmp_path: Path) -> None:
    a, b = depth(0), depth(1)
    found = compare(*open_pair(write_npz(tmp_path / "a.npz", a), write_npz(tmp_path / "b.npz", b)))
    apart = np.abs(a.astype(np.float64) - b)
    scale, shift = np.polyfit(a.ravel(), b.ravel(), 1)
    aligned = np.abs(scale * a + shift - b)
    counts = b >= 0.01 * b.max()
    assert found.mean == pytest.approx(apart.mean())
    assert found.largest == pytest.approx(apart.max())
    assert found.rms == pytest.approx(np.sqrt((apart**2).mean()))
    assert (found.scale, found.shift) == pytest.approx((scale, shift), rel=1e-5)
    assert found.mean_aligned == pytest.approx(aligned.mean(), rel=1e-5)
    assert found.relative == pytest.approx((aligned[counts] / b[counts]).mean(), rel=1e-5)
    assert found.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], rel=1e-5)
    assert found.flicker == pytest.approx([np.abs(np.diff(each, axis=0)).mean() for each in (a, b)], rel=1e-5)
    assert found.by_frame == pytest.approx(apart.mean(axis=(1, 2)))
    assert found.worst[0][0] == int(apart.mean(axis=(1, 2)).argmax())


def test_scale_and_shift_are_taken_out(tmp_path: Path) -> None:
    a = depth()
    found = compare(*open_pair(write_npz(tmp_path / "a.npz", a), write_npz(tmp_path / "b.npz", 0.5 * a + 0.25)))
    assert found.mean > 0.05
    assert (found.scale, found.shift) == pytest.approx((0.5, 0.25), rel=1e-4)
    assert found.mean_aligned < 1e-6
    assert found.correlation == pytest.approx(1)


def test_pixels_that_are_no_numbers_do_not_count(tmp_path: Path) -> None:
    a, b = depth(), depth() + np.float32(0.125)
    a[1, 3:9, 5:] = np.nan
    b[2, 0, 0] = np.inf
    found = compare(*open_pair(write_npz(tmp_path / "a.npz", a), write_npz(tmp_path / "b.npz", b)), tmp_path / "d.mp4")
    assert found.mean == pytest.approx(0.125, rel=1e-5)
    assert decode(tmp_path / "d.mp4").shape == (FRAMES, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["exr", "png", "mp4"])
def test_every_kind_of_result_is_read_as_the_npz_has_it(kind: str, tmp_path: Path) -> None:
    values = depth()
    path = tmp_path / ("b.mp4" if kind == "mp4" else "b")
    if kind == "mp4":
        with VideoWriter(path, Fraction(24), HEIGHT, WIDTH, crf=0) as video:
            for frame in values:
                video.write(np.rint(frame * 255).astype(np.uint8))
    else:
        with ExrWriter(path) if kind == "exr" else PngWriter(path) as frames:
            for frame in values:
                frames.write(frame)
    found = compare(*open_pair(write_npz(tmp_path / "a.npz", values), path))
    assert found.largest <= {"exr": 0, "png": 0.51 / 65535, "mp4": 1 / 219}[kind]


def test_videos_whose_pixels_are_not_square_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    path, wide = tmp_path / "b.mp4", Fraction(160, 189)
    with VideoWriter(path, Fraction(24), HEIGHT, WIDTH, crf=0, sample_aspect_ratio=wide) as video:
        for frame in depth():
            video.write(np.rint(frame * 255).astype(np.uint8))
    found = compare(*open_pair(write_npz(tmp_path / "a.npz", depth()), path), tmp_path / "d.mp4")
    assert (found.height, found.width) == (HEIGHT, WIDTH)
    assert found.largest <= 1 / 219
    difference = probe(tmp_path / "d.mp4")
    assert difference.stored_size == (HEIGHT, WIDTH)
    assert difference.aspect == Fraction(WIDTH, HEIGHT) * wide


@pytest.mark.parametrize("preset", EXR_PRESETS)
def test_exr_files_of_every_preset_are_read(preset: str, tmp_path: Path) -> None:
    values = depth()
    with ExrWriter(tmp_path / "b", preset=preset) as frames:
        for frame in values:
            frames.write(frame)
    assert compare(*open_pair(write_npz(tmp_path / "a.npz", values), tmp_path / "b")).largest == 0


def test_the_video_is_red_where_a_is_larger_and_blue_where_b_is(tmp_path: Path) -> None:
    a = np.full((3, HEIGHT, WIDTH), 0.5, np.float32)
    b = a.copy()
    a[:, :, :20] = 0.75
    b[:, :, 44:] = 0.75
    pair = open_pair(write_npz(tmp_path / "a.npz", a), write_npz(tmp_path / "b.npz", b))
    compare(*pair, tmp_path / "d.mp4")
    left, middle, right = (decode(tmp_path / "d.mp4")[1, 10, column].astype(int) for column in (8, 32, 56))
    assert left[0] > 240 > 20 > left[2]
    assert right[2] > 240 > 20 > right[0]
    assert (middle > 245).all()


def test_a_and_b_are_put_before_their_difference(tmp_path: Path) -> None:
    a = np.zeros((2, HEIGHT, WIDTH), np.float32)
    a[:, :, 32:] = 3.0  # values as a model may give them: black and white are the smallest and the largest
    pair = open_pair(write_npz(tmp_path / "a.npz", a), write_npz(tmp_path / "b.npz", 1 - a))
    compare(*pair, tmp_path / "d.mp4", side_by_side=True)
    shown = decode(tmp_path / "d.mp4")[0, 20, :, 1].astype(int)
    assert len(shown) == 3 * WIDTH
    for column, value in (10, 0), (50, 255), (74, 255), (114, 0):
        assert abs(shown[column] - value) < 6


def test_colours_of_a_difference_are_full_at_both_its_ends() -> None:
    colours = signed_colours(np.array([[-2.0, -1.0, 0.0, 0.5, 1.0]], np.float32), 1.0)[0].tolist()
    assert colours == [[0, 0, 255], [0, 0, 255], [255, 255, 255], [255, 128, 128], [255, 0, 0]]


def test_sizes_and_lengths_must_agree(tmp_path: Path) -> None:
    a, small = write_npz(tmp_path / "a.npz", depth()), write_npz(tmp_path / "s.npz", depth()[:, ::2])
    short = write_npz(tmp_path / "t.npz", depth()[:3])
    with pytest.raises(UserError, match=r"a\.npz is 64x48 pixels and .*s\.npz is 64x24; compare results of one size\."):
        open_pair(a, small)
    with pytest.raises(UserError, match=r"a\.npz has 5 frames and .*t\.npz has 3; compare results of the same frames"):
        open_pair(a, short)


def test_what_is_no_depth_gets_one_sentence(tmp_path: Path) -> None:
    a = write_npz(tmp_path / "a.npz", depth())
    coloured = write_clip(tmp_path / "vis.mp4", moving_gradient(FRAMES, HEIGHT, WIDTH))
    with pytest.raises(UserError, match="is in colours, and depth is in grey"):
        compare(*open_pair(a, coloured))
    with pytest.raises(UserError, match=r"there is no such file"):
        open_pair(a, tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(UserError, match="is no NPZ file that can be read"):
        open_pair(a, tmp_path / "text.npz")
    np.savez(tmp_path / "ints.npz", depth=np.zeros((5, 48, 64), np.int32))
    with pytest.raises(UserError, match="write depth as floats"):
        open_pair(a, tmp_path / "ints.npz")
    nothing = write_npz(tmp_path / "nan.npz", np.full_like(depth(), np.nan))
    with pytest.raises(UserError, match="no pixel where both are numbers"):
        compare(*open_pair(a, nothing))


def test_a_video_that_is_turned_is_one_sentence(tmp_path: Path) -> None:
    grey = np.repeat(moving_gradient(FRAMES, HEIGHT, WIDTH)[..., :1], 3, axis=-1)
    turned = with_matrix(write_clip(tmp_path / "turned.mp4", grey), 0, 1, -1, 0)
    with pytest.raises(UserError, match="is turned, or changes its size"):
        compare(*open_pair(turned, turned))
