"""Views by depth: exact shifts, who is in front, holes and what fills them, and the ways to put two views into one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dc_rt.media.stereo import StereoWarper, View, anaglyph, halved

HEIGHT, WIDTH = 150, 200  # more than one band of rows, and no whole number of them


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def depth(value: float) -> NDArray[np.float32]:
    return np.full((HEIGHT, WIDTH), value, np.float32)


def views(
    image: NDArray[np.uint8], depth: NDArray[np.float32], disparity: float, convergence: float = 0.5
) -> tuple[View, View]:
    with StereoWarper(disparity, convergence) as warper:
        return warper.left(image, depth), warper.right(image, depth)


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
