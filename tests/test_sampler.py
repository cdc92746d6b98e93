"""Samplers: the arithmetic worked out by hand, the order of their error, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dc_rt import DepthCrafter, Job, Sampling
from dc_rt.errors import UserError
from dc_rt.job.events import Event, Finished, Planned, Progressed, Resumed
from dc_rt.job.share import Share
from dc_rt.sampler import SAMPLERS, sample_euler
from dc_rt.schedule import noise_levels
from media_helpers import moving_gradient, write_clip


def gaussian(x: float, sigma: float) -> float:
    """D(x; sigma) of data of unit variance: its flow is x(sigma) = x(0) sqrt(sigma^2 + 1)."""
    return x / (sigma**2 + 1)


def error(sample: Callable[..., float], steps: int) -> float:
    sigmas = np.linspace(2, 0, steps + 1).tolist()
    return abs(sample(gaussian, math.sqrt(5), sigmas) - 1)


def test_euler_is_of_first_order() -> None:
    assert math.log2(error(sample_euler, 64) / error(sample_euler, 128)) == pytest.approx(1, abs=0.15)


def test_a_step_of_euler_is_what_it_is_by_hand() -> None:
    """From 4 by 2 to 0, D(x; sigma) = sigma: slopes (8 - 4) / 4 and (6 - 2) / 2."""
    assert sample_euler(lambda x, sigma: sigma, 8.0, [4.0, 2.0, 0.0]) == 8 - 2 * 1 - 2 * 2


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 10])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_states_what_it_evaluates(name: str, steps: int) -> None:
    """Each evaluation is at a level of the step that it is stated for."""
    if steps < SAMPLERS[name].least_steps:
        return
    evaluated: list[float] = []

    def denoise(x: float, sigma: float) -> float:
        evaluated.append(sigma)
        return gaussian(x, sigma)

    sigmas = noise_levels(Sampling(steps=steps)).tolist()
    SAMPLERS[name].sample(denoise, 1.0, sigmas)
    stated = list(SAMPLERS[name].evaluations(steps))
    step_of = [step for step, evaluations in enumerate(stated) for _ in range(evaluations)]
    assert len(step_of) == len(evaluated)
    assert all(sigmas[step] >= sigma > sigmas[step + 1] for step, sigma in zip(step_of, evaluated, strict=True))
    assert Sampling(steps=steps, sampler=name).evaluations == tuple(stated)
    assert Sampling(steps=steps, sampler=name, guidance_scale=1.5).evaluations == tuple(2 * n for n in stated)


@pytest.mark.parametrize("steps", range(4, 11))
def test_trimmed_is_euler_but_for_what_the_derivation_says(steps: int) -> None:
    """docs/samplers.md: what each evaluation is given, and the result."""
    rng = np.random.default_rng(steps)
    s = noise_levels(Sampling(steps=steps)).astype(np.float64)
    denoised = {sigma: rng.standard_normal(1000) for sigma in s}  # whatever x is
    start = s[0] * rng.standard_normal(1000)

    def run(name: str) -> tuple[dict[float, np.ndarray], np.ndarray]:
        given = {}

        def denoise(x: np.ndarray, sigma: float) -> np.ndarray:
            given[sigma] = x
            return denoised[sigma]

        return given, SAMPLERS[name].sample(denoise, start, s)

    (euler, full), (trimmed, result) = run("euler"), run("trimmed")
    assert list(trimmed) == list(s[1:-2])
    d0, d1 = denoised[s[0]], denoised[s[1]]
    np.testing.assert_allclose(euler[s[1]] - trimmed[s[1]], d0 * (1 - s[1] / s[0]), atol=1e-9)
    for sigma in s[2:-2]:
        error = (d0 - d1) * (1 - s[1] / s[0]) * sigma / s[1]
        np.testing.assert_allclose(euler[sigma] - trimmed[sigma], error, atol=1e-9)
    np.testing.assert_allclose(full, denoised[s[-2]])
    np.testing.assert_allclose(result, denoised[s[-3]])


def test_trimmed_takes_no_fewer_steps_than_it_is_accurate_with() -> None:
    with pytest.raises(
        UserError, match=r"sampler='trimmed' takes steps of at least 4, not 3: .* try steps=5, or sampler='euler'"
    ):
        Sampling(steps=3, sampler="trimmed")
    assert "less accurate with 4 steps" in Sampling(steps=4, sampler="trimmed").notes[0]
    assert not Sampling(steps=5, sampler="trimmed").notes
    assert not Sampling(steps=1).notes


@pytest.mark.parametrize("name", SAMPLERS)
def test_pytorch_samples_what_numpy_samples(name: str) -> None:
    torch = pytest.importorskip("torch")
    sigmas = noise_levels(Sampling())
    x = 700 * np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    expected = SAMPLERS[name].sample(gaussian, x, sigmas)
    assert expected.dtype == np.float32
    actual = SAMPLERS[name].sample(gaussian, torch.from_numpy(x), [float(sigma) for sigma in sigmas])
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("guidance_scale", [1.0, 1.5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_progress_reaches_100_percent_with_the_last_frame_and_no_earlier(
    bundled: DepthCrafter, name: str, guidance_scale: float
) -> None:
    clip = write_clip(Path("clip.mp4"), moving_gradient(11, 64, 64))
    sampling = Sampling(steps=4, sampler=name, guidance_scale=guidance_scale, window_size=6, overlap=2)
    told: list[Event] = []
    share = Share()
    shown: list[float | None] = []

    def listen(event: Event) -> None:
        told.append(event)
        share.hear(event)
        shown.append(share.done)

    Job(bundled, clip, sampling, listener=listen).run()
    (planned,) = (event for event in told if isinstance(event, Planned))
    runs = [event for event in told if isinstance(event, Progressed)]
    assert sum(event.num_frames for event in runs if event.stage == "denoiser") == planned.num_evaluated
    assert isinstance(told[-1], Finished)
    assert shown[-2:] == [1, 1]
    decoded = [i for i, event in enumerate(told) if isinstance(event, Progressed) and event.stage == "vae_decoder"]
    assert max(done for done in shown[: decoded[-1]] if done is not None) < 1


def test_progress_in_all_goes_on_where_an_earlier_run_was() -> None:
    resumed, whole = Share(), Share()
    planned = Planned("a", 10, 64, 64, 24.0, 10, 64, 64, 24.0, 60)
    of_the_first: list[Event] = [planned, Progressed("denoiser", 30, 1.0), Progressed("vae_decoder", 5, 1.0)]
    for event in of_the_first:
        whole.hear(event)
    resumed.hear(planned)
    resumed.hear(Resumed(5, 30))
    assert resumed.done == 0
    assert resumed.done_in_all == pytest.approx(40 / 80)  # of 60 evaluated, 10 encoded and 10 decoded, 30 and 5 and 5
    assert whole.done_in_all == whole.done == pytest.approx(35 / 80)
    resumed.hear(Progressed("denoiser", 15, 1.0))
    assert resumed.done_in_all == pytest.approx(55 / 80)
    resumed.hear(Finished((), 10, 1.0))
    assert resumed.done_in_all == 1
