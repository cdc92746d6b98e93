"""Ending what engines are at: from another thread, at once, and without a trace in later results."""

import threading
import time

import numpy as np
import pytest

from dc_rt.engine import GRAPHS, EngineSet, Interrupted, Manifest, load_engines
from dc_rt.engine.discovery import BUNDLED

NUM_FRAMES = 110


def denoiser_inputs(num_frames, height, width):
    rng = np.random.default_rng(0)
    latents = (1, num_frames, 4, height // 8, width // 8)
    return {
        "noisy": rng.standard_normal(latents, dtype=np.float32),
        "sigma": np.asarray(1.5, np.float32),
        "image_latents": rng.standard_normal(latents, dtype=np.float32),
        "embeddings": rng.standard_normal((1, num_frames, 64), dtype=np.float32),
    }


@pytest.fixture
def engines():
    with load_engines(BUNDLED, "onnx") as engines:
        yield engines


def test_a_long_run_of_the_denoiser_ends_soon_and_later_runs_give_the_same_bits(engines, capfd):
    """Of a size whose longest node takes less than a second: a node that has begun is computed to its end."""
    long, short = denoiser_inputs(NUM_FRAMES, 192, 192), denoiser_inputs(4, 64, 64)
    expected = engines("denoiser", **short)
    asked_at = []

    def interrupt():
        asked_at.append(time.perf_counter())
        engines.interrupt()

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(Interrupted):
        engines("denoiser", **long)
    assert time.perf_counter() - asked_at[0] < 2
    timer.join()
    for graph in GRAPHS:
        with pytest.raises(Interrupted):
            engines(graph, **short)
    engines.rearm()
    np.testing.assert_array_equal(engines("denoiser", **short), expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cpu_offload", ["none", "model"])
def test_a_set_that_was_interrupted_opens_and_runs_nothing(cpu_offload):
    with load_engines(BUNDLED, "onnx", cpu_offload) as engines:
        engines.interrupt()
        with pytest.raises(Interrupted):
            engines("denoiser", **denoiser_inputs(1, 64, 64))
        engines.rearm()
        engines("denoiser", **denoiser_inputs(1, 64, 64))


def test_an_engine_that_is_opened_meanwhile_is_not_run():
    ran: list[str] = []

    def open_engine(graph):
        interruption = threading.Thread(target=opened.interrupt)
        interruption.start()
        interruption.join()
        return lambda **inputs: ran.append(graph)

    opened = EngineSet(Manifest.read(BUNDLED), "other", "here", open_engine, one_resident=True)
    with pytest.raises(Interrupted):
        opened("denoiser")
    assert ran == []
