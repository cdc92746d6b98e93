"""The procedural scenes: pure functions of their seeds, with exact depth."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from depthcrafter.nano.scenes import Scene, Swing, Thing, make_clip, make_scene, render


def at(*point: float) -> Swing:
    """Standing still."""
    return Swing(np.array(point), np.zeros(len(point)), 1.0, 0.0)


def scene_with(shape: Any, size: tuple[float, float, float], *, yaw: float = 0.0) -> Scene:
    """A camera at the height of a thing 5 m ahead, in a room that ends at 9 m, seen at 90 degrees."""
    scene = make_scene(1)
    thing = Thing(shape, np.array(size), at(0, 1, 5), at(yaw), scene.room[0])
    low, high = np.array([-3.0, 0, -2]), np.array([3.0, 4, 9])
    return dataclasses.replace(
        scene, low=low, high=high, things=(thing,), eye=at(0, 1, 0), turn=at(0, 0, 0), half_view=1.0
    )


@pytest.mark.parametrize(
    ("shape", "size", "yaw", "depth"),
    [
        ("sphere", (0.5, 0.5, 0.5), 0.0, 4.5),
        ("box", (0.5, 0.5, 0.7), 0.0, 4.3),
        ("box", (0.5, 0.5, 0.5), math.pi / 4, 5 - math.sqrt(0.5)),
        ("cylinder", (0.3, 0.8, 0.3), 0.0, 4.7),
    ],
)
def test_depth_of_a_thing_straight_ahead_is_the_distance_to_its_surface(shape, size, yaw, depth):
    _, found = render(scene_with(shape, size, yaw=yaw), 0.0, 101, 101)
    assert found[50, 50] == pytest.approx(depth, rel=1e-5)


def test_depth_of_the_room_is_along_the_axis_not_along_the_ray():
    _, depth = render(scene_with("sphere", (0.1, 0.1, 0.1)), 0.0, 101, 101)
    # The wall ahead is a plane across the axis: 9 m everywhere, also off the middle.
    assert depth[45, 40] == pytest.approx(9, rel=1e-5)
    # The floor, 1 m down, where the ray goes down by a slope: 1 / slope ahead. The wall 3 m to the right likewise.
    assert depth[80, 50] == pytest.approx(1 / (30 / 50.5), rel=1e-5)
    assert depth[50, 95] == pytest.approx(3 / (45 / 50.5), rel=1e-5)


def test_a_moving_camera_sees_one_and_the_same_world():
    """Points of one frame lie, seen from another, at that frame's depth, but for what is hidden or out of view."""
    scene = dataclasses.replace(make_scene(12), things=tuple(t for t in make_scene(12).things))
    scene = dataclasses.replace(
        scene, things=tuple(dataclasses.replace(t, position=at(*t.position.centre), yaw=at(0.3)) for t in scene.things)
    )
    height, width = 96, 144
    focal = height / 2 / scene.half_view
    # Without a turn the two views differ by a shift, which needs nothing of the renderer's own to undo.
    scene = dataclasses.replace(scene, turn=at(0, 0, 0))
    apart = 0.7
    (_, before), (_, after) = (render(scene, time, height, width) for time in (0.0, apart))
    y, x = np.mgrid[:height, :width]
    points = np.stack([(x + 0.5 - width / 2) / focal, (height / 2 - y - 0.5) / focal, np.ones_like(before)])
    moved = points * before + (scene.eye.at(0.0) - scene.eye.at(apart))[:, None, None]
    u = np.floor(moved[0] / moved[2] * focal + width / 2).astype(int)
    v = np.floor(height / 2 - moved[1] / moved[2] * focal).astype(int)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    assert inside.mean() > 0.5
    error = np.abs(after[v[inside], u[inside]] / moved[2][inside] - 1)
    # A pixel is some width across, so what is slanted is off by a little.
    assert np.median(error) < 0.01
    assert np.mean(error < 0.05) > 0.9
    assert np.mean(np.abs(after / before - 1)) > 0.02  # and the views do differ


def test_a_clip_is_a_pure_function_of_its_seed():
    clip, again, longer, other = (make_clip(*call, 64, 96) for call in [(3, 2), (3, 2), (3, 4), (4, 2)])
    assert np.array_equal(clip.frames, again.frames)
    assert np.array_equal(clip.depth, again.depth)
    assert np.array_equal(clip.frames, longer.frames[:2])
    assert not np.array_equal(clip.frames, other.frames)


def test_disparity_is_normalised_over_the_clip_and_larger_is_nearer():
    clip = make_clip(5, 3, 64, 96)
    disparity = clip.disparity
    assert disparity.shape == clip.depth.shape == (3, 64, 96)
    assert disparity.dtype == np.float32
    assert (disparity.min(), disparity.max()) == (0, 1)
    assert disparity.argmax() == clip.depth.argmin()
    assert np.corrcoef(disparity.ravel(), 1 / clip.depth.ravel())[0, 1] == pytest.approx(1)


def test_before_a_still_camera_only_what_moves_changes():
    still, moving = (make_clip(7, 6, 64, 96, static_camera=static) for static in (True, False))
    same = np.diff(still.depth, axis=0) == 0
    assert same.mean() > 0.5
    assert (np.diff(moving.depth, axis=0) == 0).mean() < 0.05


def test_scenes_are_of_many_kinds():
    scenes = [make_scene(seed) for seed in range(60)]
    assert {thing.shape for scene in scenes for thing in scene.things} == {"box", "sphere", "cylinder"}
    patterns = {surface.pattern for scene in scenes for surface in scene.room}
    assert patterns == {"plain", "checks", "stripes", "blotches"}
    assert {scene.fog > 0 for scene in scenes} == {True, False}
    assert {bool(thing.position.amplitude.any()) for scene in scenes for thing in scene.things} == {True, False}
    assert np.ptp([scene.half_view for scene in scenes]) > 0.2
    clips = [make_clip(seed, 1, 64, 96) for seed in range(40)]
    for clip in clips:
        assert np.isfinite(clip.depth).all()
        assert clip.depth.min() > 0.2
        assert clip.depth.max() < 30
        assert clip.frames.std() > 10
