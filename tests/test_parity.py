"""The runtime on exported engines against the PyTorch reference: same weights, same noise, float32."""

import numpy as np
import pytest

from dc_rt import Noise
from dc_rt.sampler import SAMPLERS

WINDOW, OVERLAP = 16, 5
STRIDE = WINDOW - OVERLAP


def smooth_clip(num_frames, height, width, seed):
    """A moving pattern with some noise on it: neither flat nor white, as videos are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 32
    t = np.arange(num_frames)[:, None, None, None] / 5
    phase, speed = rng.uniform(0, 6, (2, 3))
    waves = np.sin(x[None, ..., None] + speed * t + phase) * np.cos(y[None, ..., None] - t)
    return (127 + 90 * waves + rng.normal(0, 12, (num_frames, height, width, 3))).clip(0, 255).astype(np.uint8)


def assert_same_depth(actual, expected):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == np.float32
    assert expected.std() > 0.01, "the clip's depth is flat, so that agreement means nothing"
    difference = np.abs(actual - expected)
    assert difference.mean() <= 1e-5
    assert difference.max() <= 1e-3


@pytest.mark.parametrize(
    ("size", "guidance_scale"),
    [
        ((128, 128), 1.2),
        ((128, 192), 1.0),
        pytest.param((128, 128), 1.0, marks=pytest.mark.soak),
        pytest.param((128, 192), 1.2, marks=pytest.mark.soak),
    ],
    ids=lambda value: str(value),
)
def test_a_clip_of_several_windows_is_the_references(model, reference, size, guidance_scale):
    frames = smooth_clip(40, *size, seed=sum(size))
    options = {"steps": 5, "guidance_scale": guidance_scale, "window_size": WINDOW, "overlap": OVERLAP}
    expected = reference(frames, noise=Noise(11), **options)
    assert_same_depth(np.stack(list(model(frames, noise=Noise(11), **options))), expected)


LENGTHS = sorted(
    {1, 2, OVERLAP, WINDOW - 1, WINDOW, WINDOW + 1}
    | {WINDOW + STRIDE - 1, WINDOW + STRIDE, WINDOW + STRIDE + 1}
    | {WINDOW + 2 * STRIDE + 2}
)


@pytest.mark.parametrize("num_frames", LENGTHS)
def test_every_length_is_the_references(model, reference, num_frames):
    frames = smooth_clip(num_frames, 128, 64, seed=num_frames)
    options = {"steps": 2, "window_size": WINDOW, "overlap": OVERLAP}
    expected = reference(frames, noise=Noise(5), **options)
    assert_same_depth(np.stack(list(model(frames, noise=Noise(5), **options))), expected)


@pytest.mark.parametrize(("window", "overlap"), [(8, 0), (8, 7), (9, 6), (1, 0), (3, 1)])
def test_every_overlap_is_the_references(model, reference, window, overlap):
    """Without overlap, with more than half a window of it (frames blended twice), and tiny windows."""
    frames = smooth_clip(14, 128, 64, seed=window)
    options = {"steps": 2, "window_size": window, "overlap": overlap}
    expected = reference(frames, noise=Noise(5), **options)
    assert_same_depth(np.stack(list(model(frames, noise=Noise(5), **options))), expected)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_every_number_of_steps_is_the_references(model, reference, steps):
    frames = smooth_clip(4, 128, 64, seed=steps)
    expected = reference(frames, steps=steps, noise=Noise(6))
    assert_same_depth(np.stack(list(model(frames, steps=steps, noise=Noise(6)))), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_the_references(model, reference, sampler):
    frames = smooth_clip(14, 128, 64, seed=7)
    options = {"steps": 4, "sampler": sampler, "guidance_scale": 1.2, "window_size": 8, "overlap": 3}
    expected = reference(frames, noise=Noise(7), **options)
    assert_same_depth(np.stack(list(model(frames, noise=Noise(7), **options))), expected)
