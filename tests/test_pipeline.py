"""The generator: what it asks of its frames, and what it gives for them."""

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

from dc_rt import DepthCrafter, Noise, UserError
from dc_rt.engine.discovery import BUNDLED

OPTIONS: dict[str, Any] = {"steps": 1, "window_size": 10, "overlap": 3}


def clip(num_frames, height=64, width=128, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def in_pieces(frames, piece):
    for i in range(0, len(frames), piece):
        yield from frames[i : i + piece]


@pytest.mark.parametrize("guidance_scale", [1.0, 1.5])
def test_depth_does_not_depend_on_how_frames_arrive(bundled, guidance_scale):
    frames = clip(25)
    options = OPTIONS | {"guidance_scale": guidance_scale}
    whole = np.stack(list(bundled(frames, **options)))
    ways = [list(frames), iter(frames), (frame for frame in frames), in_pieces(frames, 1), in_pieces(frames, 7)]
    for way in ways:
        np.testing.assert_array_equal(np.stack(list(bundled(way, **options))), whole)


def test_depth_does_not_depend_on_how_it_is_taken(bundled):
    frames = clip(25)
    whole = np.stack(list(bundled(frames, **OPTIONS)))
    depths = bundled(iter(frames), **OPTIONS)
    pieces = [next(depths) for _ in range(9)]
    np.testing.assert_array_equal(np.stack([*pieces, *depths]), whole)


def test_depth_is_float32_in_0_to_1_a_frame_each(bundled):
    depths = list(bundled(clip(9), **OPTIONS))
    assert len(depths) == 9
    for depth in depths:
        assert depth.shape == (64, 128)
        assert depth.dtype == np.float32
        assert depth.min() >= 0
        assert depth.max() <= 1


def test_frames_are_read_one_window_ahead_and_no_further(bundled):
    taken = 0

    def frames():
        nonlocal taken
        for frame in clip(40):
            taken += 1
            yield frame

    depths = bundled(frames(), **OPTIONS)
    assert taken == 0
    for index, _ in enumerate(depths):
        # Depth of frame i needs the window that finishes it, one frame beyond, and at most a chunk of 8 more.
        assert taken <= min(40, index + 8 + 10 + 1)


def test_memory_does_not_grow_with_the_video(bundled):
    def peak(num_frames):
        gc.collect()
        tracemalloc.start()
        for _ in bundled((frame.copy() for frame in clip(num_frames)), **OPTIONS):
            pass
        held = tracemalloc.get_traced_memory()[1] - num_frames * 64 * 128 * 3  # the clip itself
        tracemalloc.stop()
        return held

    peak(20)
    assert peak(80) < 1.2 * peak(20)


def test_no_frames_give_no_depth(bundled):
    assert list(bundled([], **OPTIONS)) == []


def test_the_default_noise_is_seed_42_and_another_seed_differs(bundled):
    frames = clip(3)
    default = np.stack(list(bundled(frames, **OPTIONS)))
    np.testing.assert_array_equal(np.stack(list(bundled(frames, noise=Noise(42), **OPTIONS))), default)
    assert np.abs(np.stack(list(bundled(frames, noise=Noise(43), **OPTIONS))) - default).mean() > 1e-3


def test_guidance_up_to_1_is_none_and_above_it_changes_depth(bundled):
    frames = clip(3)
    plain = np.stack(list(bundled(frames, **OPTIONS)))
    np.testing.assert_array_equal(np.stack(list(bundled(frames, guidance_scale=0.5, **OPTIONS))), plain)
    assert np.abs(np.stack(list(bundled(frames, guidance_scale=2.0, **OPTIONS))) - plain).mean() > 1e-3


def test_progress_counts_the_work_of_every_stage(bundled):
    done = {}

    def progress(stage, frames, seconds):
        assert seconds >= 0
        done[stage] = done.get(stage, 0) + frames

    list(bundled(clip(17), progress=progress, **OPTIONS | {"steps": 2}))
    assert done == {"clip_encoder": 17, "vae_encoder": 17, "denoiser": 2 * (10 + 10), "vae_decoder": 17}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 10}, "overlap"),
        ({"window_size": 0}, "window"),
        ({"window_size": 10_000}, "window_size=256"),
        ({"steps": 0}, "steps"),
    ],
)
def test_impossible_options_are_an_error_at_once(bundled, options, message):
    with pytest.raises(UserError, match=message):
        bundled(clip(3), **OPTIONS | options)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([clip(1, 64, 100)[0]], "multiples of 64"),
        ([clip(1, 64, 4096)[0]], "profile large"),
        ([clip(1)[0].astype(np.float32)], "uint8"),
        ([clip(1)[0][..., 0]], "uint8"),
        ([clip(1)[0], clip(1, 128, 128)[0]], "Frame 1"),
    ],
)
def test_impossible_frames_are_an_error_when_they_come(bundled, frames, message):
    with pytest.raises(UserError, match=message):
        list(bundled(frames, **OPTIONS))


def test_one_engine_in_memory_at_a_time_gives_the_same_depth(bundled):
    frames = clip(12)
    frugal = DepthCrafter.load(BUNDLED, cpu_offload="model")
    resident = []
    depths = frugal(frames, progress=lambda *_: resident.append(len(frugal.engines._engines)), **OPTIONS)
    np.testing.assert_array_equal(np.stack(list(depths)), np.stack(list(bundled(frames, **OPTIONS))))
    assert set(resident) == {1}
