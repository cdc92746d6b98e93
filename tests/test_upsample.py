"""Depth at another size: exact geometry, edges where the picture has them, and nothing of the picture anywhere else."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bench.accuracy.upsampling import encoded, fitted, near_edges, reduced, upsampled
from dc_rt import DepthCrafter
from dc_rt.media import read_frames
from dc_rt.media.upsample import Upsampler
from dc_rt.options import UPSCALES
from depthcrafter.nano.scenes import Clip, make_clip
from media_helpers import moving_gradient, real_clip

Array = NDArray[np.float32]
SMALL, LARGE = (64, 128), (120, 240)  # the ratio of 1024x576 to 1920x1080
EDGE_SEEDS = range(405, 411)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Scenes that nano was not trained on."""
    return [make_clip(seed, 4, *LARGE, static_camera=seed % 3 == 0) for seed in EDGE_SEEDS]


def picture(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def step(size: tuple[int, int], at: float, low: float, high: float) -> Array:
    """Depth that jumps at a share of the width: float32 [h,w]."""
    return np.where(np.arange(size[1]) < at * size[1], low, high).astype(np.float32)[None].repeat(size[0], 0)


def mean_error(found: Array, truth: Array, where: NDArray[np.bool_]) -> float:
    return float(np.abs(found - truth)[where].mean())


@pytest.mark.parametrize("mode", UPSCALES)
def test_the_size_of_the_model_is_the_identity(mode: str) -> None:
    depth = picture((64, 128)).mean(axis=2).astype(np.float32) / 255
    np.testing.assert_array_equal(Upsampler((64, 128), (64, 128), mode)(depth, picture((64, 128))), depth)


@pytest.mark.parametrize("mode", UPSCALES)
@pytest.mark.parametrize(
    ("model_size", "size"),
    [
        ((192, 320), (182, 322)),  # one side shrinks, one grows
        ((320, 192), (322, 180)),
        ((64, 64), (181, 321)),
        ((64, 128), (360, 640)),
        ((64, 128), (33, 17)),
        ((64, 64), (1, 1)),
        ((64, 64), (1, 300)),
        ((64, 64), (64, 65)),
    ],
)
def test_every_size_is_exact_and_no_value_lies_outside_those_there_were(
    mode: str, model_size: tuple[int, int], size: tuple[int, int]
) -> None:
    depth = np.random.default_rng(1).uniform(0.2, 0.7, model_size).astype(np.float32)
    found = Upsampler(model_size, size, mode)(depth, picture(size))
    assert found.shape == size
    assert found.dtype == np.float32
    assert depth.min() <= found.min()
    assert found.max() <= depth.max()


def test_bilinear_lays_the_centres_of_pixels_over_one_another() -> None:
    down, right = (np.arange(side) + 0.5 for side in SMALL)
    depth = (down[:, None] / SMALL[0] + right / SMALL[1]).astype(np.float32)
    found = Upsampler(SMALL, LARGE, "bilinear")(depth)
    down, right = (np.arange(side) + 0.5 for side in LARGE)
    inner = (slice(2, -2),) * 2
    np.testing.assert_allclose(found[inner], (down[:, None] / LARGE[0] + right / LARGE[1])[inner], atol=1e-6)


@pytest.mark.parametrize("mode", UPSCALES)
def test_what_is_finer_than_the_new_pixels_becomes_its_mean(mode: str) -> None:
    stripes = (np.arange(128) % 2).astype(np.float32)[None].repeat(64, 0)
    found = Upsampler((64, 128), (16, 32), mode)(stripes, picture((16, 32)))
    np.testing.assert_allclose(found[:, 1:-1], 0.5, atol=1e-6)  # at the border half of a sample is missing


def test_a_result_lies_within_the_depth_around_each_pixel() -> None:
    depth = np.random.default_rng(2).uniform(0, 1, (32, 48)).astype(np.float32)
    found = Upsampler((32, 48), (96, 144))(depth, picture((96, 144)))
    around = sliding_window_view(np.pad(depth, 2, mode="edge"), (5, 5))
    low, high = (np.kron(side, np.ones((3, 3))) for side in (around.min(axis=(2, 3)), around.max(axis=(2, 3))))
    assert np.all(found >= low - 1e-6)
    assert np.all(found <= high + 1e-6)


@pytest.mark.parametrize("mode", UPSCALES)
def test_stretching_depth_afterwards_is_stretching_it_before(mode: str) -> None:
    depth = step(SMALL, 0.4, 0.1, 0.5)
    upsampler = Upsampler(SMALL, LARGE, mode)
    guide = np.repeat(step(LARGE, 0.41, 30, 220)[..., None], 3, 2).astype(np.uint8)
    stretched = upsampler(1.75 * depth + 0.05, guide)
    np.testing.assert_allclose(stretched, 1.75 * upsampler(depth, guide) + 0.05, atol=1e-6)


def test_an_edge_is_where_the_picture_has_it() -> None:
    guide = np.repeat(step(LARGE, 0.5, 40, 200)[..., None], 3, 2).astype(np.uint8)
    truth = step(LARGE, 0.5, 0.2, 0.8)
    depth = reduced(truth[None], SMALL)[0]
    guided = Upsampler(SMALL, LARGE)(depth, guide)
    assert np.abs(guided - truth).max() < 0.07  # the samples at the edge are of both sides
    assert np.abs(Upsampler(SMALL, LARGE, "bilinear")(depth) - truth).max() > 0.13


@pytest.mark.parametrize("is_compressed", [False, True])
def test_near_true_edges_the_error_is_at_most_0_6_of_bilinears(clips: list[Clip], is_compressed: bool) -> None:
    errors = {"guided": 0.0, "bilinear": 0.0}
    for clip in clips:
        truth = clip.disparity
        near = np.stack([near_edges(frame) for frame in truth])
        guides = encoded(clip.frames, 23) if is_compressed else clip.frames
        for mode in UPSCALES:
            errors[mode] += mean_error(upsampled(reduced(truth, SMALL), guides, mode), truth, near)
    assert errors["guided"] <= 0.6 * errors["bilinear"]


def test_the_models_own_depth_is_no_worse_and_flickers_no_more(clips: list[Clip], bundled: DepthCrafter) -> None:
    errors = {"guided": 0.0, "bilinear": 0.0}
    flicker, change = dict(errors), dict(errors)
    for clip in clips:
        truth = clip.disparity
        own = fitted(np.stack(list(bundled(encoded(clip.frames, 1, SMALL)))), reduced(truth, SMALL))
        near = np.stack([near_edges(frame) for frame in truth])
        moves = np.diff(truth, axis=0)
        for mode in UPSCALES:
            found = upsampled(own, clip.frames, mode)
            errors[mode] += mean_error(found, truth, near)
            change[mode] += mean_error(np.diff(found, axis=0), moves, np.ones_like(moves, bool))
            if (moves == 0).any():
                flicker[mode] += mean_error(np.diff(found, axis=0), moves, moves == 0)
    assert errors["guided"] <= errors["bilinear"]
    assert change["guided"] <= 1.005 * change["bilinear"]
    assert 0 < flicker["guided"] <= 1.005 * flicker["bilinear"]


def test_what_stands_still_stays_bit_for_bit() -> None:
    clip = make_clip(400, 1, *LARGE)
    depth = reduced(clip.disparity, SMALL)[0]
    upsampler = Upsampler(SMALL, LARGE)
    first = upsampler(depth, clip.frames[0])
    upsampler(depth[::-1], picture(LARGE))
    np.testing.assert_array_equal(upsampler(depth, clip.frames[0]), first)


def textures() -> dict[str, NDArray[np.uint8]]:
    y, x = np.mgrid[: LARGE[0], : LARGE[1]]
    checks = {f"checks {n}": np.repeat(((x // n + y // n) % 2 * 200 + 25)[..., None], 3, 2) for n in (4, 13)}
    film = next(read_frames(real_clip("bigbuckbunny.mp4"), *LARGE))
    return {**{name: image.astype(np.uint8) for name, image in checks.items()}, "noise": picture(LARGE), "film": film}


@pytest.mark.parametrize("texture", ["checks 4", "checks 13", "noise", "film"])
def test_a_texture_leaves_no_trace_on_a_plane(texture: str) -> None:
    guide = textures()[texture]
    y, x = np.mgrid[: SMALL[0], : SMALL[1]]
    for plane in (np.full(SMALL, 0.4), 0.2 + 0.5 * y / SMALL[0] + 0.2 * x / SMALL[1]):
        depth = plane.astype(np.float32)
        guided, bilinear = (Upsampler(SMALL, LARGE, mode)(depth, guide) for mode in UPSCALES)
        np.testing.assert_array_equal(guided, bilinear)


@pytest.mark.parametrize("texture", ["checks 4", "checks 13", "noise", "film"])
def test_what_the_model_sees_of_a_texture_is_made_no_stronger(texture: str) -> None:
    guide = textures()[texture]
    trace = reduced(guide.mean(axis=2, dtype=np.float32)[None] / 255, SMALL)[0]
    y, _ = np.mgrid[: SMALL[0], : SMALL[1]]
    depth = (0.3 + 0.4 * y / SMALL[0] + 0.04 * trace).astype(np.float32)
    depth += np.random.default_rng(0).normal(0, 0.003, SMALL).astype(np.float32)
    guided, bilinear = (Upsampler(SMALL, LARGE, mode)(depth, guide) for mode in UPSCALES)
    plane = np.linspace(bilinear[:4].mean(), bilinear[-4:].mean(), LARGE[0])[:, None]
    assert np.var(guided - plane) <= 1.05 * np.var(bilinear - plane)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_the_number_of_threads_does_not_change_the_result() -> None:
    size = (800, 1200)  # several bands
    depth, guide = picture((192, 320)).mean(axis=2, dtype=np.float32) / 255, picture(size)
    everywhere = os.sched_getaffinity(0)
    found = Upsampler((192, 320), size)(depth, guide)
    try:
        os.sched_setaffinity(0, {min(everywhere)})
        alone = Upsampler((192, 320), size)(depth, guide)
    finally:
        os.sched_setaffinity(0, everywhere)
    np.testing.assert_array_equal(alone, found)


def test_without_growth_there_is_nothing_to_guide() -> None:
    depth = step((128, 128), 0.3, 0, 1)
    guided, bilinear = (Upsampler((128, 128), (100, 128), mode)(depth, picture((100, 128))) for mode in UPSCALES)
    np.testing.assert_array_equal(guided, bilinear)


def test_without_a_picture_the_result_is_bilinear() -> None:
    depth = moving_gradient(1, *SMALL)[0].mean(axis=2, dtype=np.float32) / 255
    np.testing.assert_array_equal(Upsampler(SMALL, LARGE)(depth), Upsampler(SMALL, LARGE, "bilinear")(depth))
