"""The TensorRT backend: what is checked before an engine is opened, on real TensorRT-RTX engines; and with a GPU, runs.

Building needs no GPU, so that all but the last part runs anywhere.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from dc_rt import DepthCrafter, Noise, UserError
from dc_rt.engine import EngineSet, Manifest, cuda, load_engines, tensorrt
from dc_rt.engine.compatibility import (
    Unavailable,
    check_gpu,
    choose_build,
    describe_targets,
    find_gpu,
    is_target,
    load_library,
    this_platform,
    version_numbers,
)
from dc_rt.engine.discovery import BUNDLED, list_engines
from dc_rt.engine.manifest import GRAPHS, File
from dc_rt.engine.onnx_runtime import OnnxEngine
from engine_helpers import EMBEDDING_DIM, TARGETS, add_engines, make_onnx_set
from media_helpers import moving_gradient, write_clip

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
FAST = ("--num-denoising-steps", "1", "--max-res", "128", "--window-size", "8", "--overlap", "3")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: it has wheels for few systems")
    return add_engines(make_onnx_set(tmp_path_factory.mktemp("toy") / "set"))


@pytest.fixture
def engine_set(built, tmp_path):
    return shutil.copytree(built, tmp_path / "set")


def edit_build(folder, **changes):
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    record["builds"]["rtx"] |= changes
    path.write_text(json.dumps(record))


def dc_rt(*arguments, **environment):
    command = [sys.executable, "-m", "dc_rt.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def infer(engines, *options):
    write_clip(Path("clip.mp4"), moving_gradient(12, 64, 96, seed=0), Fraction(24))
    return dc_rt("infer", "clip.mp4", *FAST, "--engines", engines, *options, **NO_GPU)


def assert_refused(done, *messages):
    """One sentence, exit status 1, and nothing written."""
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.strip().endswith(".")
    assert not Path("demo_output").exists()
    for message in messages:
        assert re.search(message, done.stderr), done.stderr


# Choosing a backend.


def test_without_engines_a_run_says_so_and_uses_onnx_runtime():
    done = infer(BUNDLED)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.endswith("onnx on the CPU; not TensorRT, as this set has no engines for it")
    assert_refused_by_name(BUNDLED, "no engines for it", f"dc-export build {BUNDLED}", "--backend onnx")


def assert_refused_by_name(folder, *messages):
    shutil.rmtree("demo_output", ignore_errors=True)
    assert_refused(infer(folder, "--backend", "tensorrt"), *messages)


def test_without_a_gpu_a_run_says_so_and_uses_onnx_runtime(built):
    done = infer(built)
    assert done.returncode == 0, done.stderr
    reason = "; not TensorRT, as (there is no NVIDIA driver, or one too old|the NVIDIA driver finds no GPU)$"
    assert re.search(reason, done.stdout.splitlines()[0]), done.stdout
    assert len(done.stdout.splitlines()[0].replace(str(built), "engines/toy")) < 120
    assert_refused_by_name(built, "no NVIDIA driver|finds no GPU", "current one|nvidia-smi", "--backend onnx")


@pytest.mark.skipif(sys.platform == "win32", reason="it is a shell script")
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a driver that suffices")
@pytest.mark.parametrize(
    ("driver", "reason", "fix"),
    [
        ("550.54", "the driver 550.54 is of CUDA 12, and what is installed is of CUDA 13", "rtx-cu12]"),
        ("470.10", "the driver 470.10 is too old", "install a driver of version 580 or later"),
        ("580.65", "CUDA does not take the driver 580.65", "install a current one"),
    ],
)
def test_beside_a_gpu_that_cannot_be_used_a_run_says_why_and_what_to_do(built, tmp_path, driver, reason, fix):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, 8.6, {driver}, 12288, 12000, GPU-1'\n")
    program.chmod(0o755)
    write_clip(Path("clip.mp4"), moving_gradient(12, 64, 96, seed=0), Fraction(24))
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = dc_rt("infer", "clip.mp4", *FAST, "--engines", built, PATH=path)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first.endswith(f"onnx on the CPU; not TensorRT, as {reason}")
    assert second.startswith("  to run on the GPU: ")
    assert fix in second


def test_asked_for_onnx_a_run_says_nothing_of_tensorrt(built):
    done = infer(built, "--backend", "onnx")
    assert done.returncode == 0, done.stderr
    assert "TensorRT" not in done.stdout


def test_a_set_of_engines_alone_is_complete(built):
    folder = Path(shutil.copytree(built, "engines/toy"))
    for graph in folder.glob("*.onnx"):
        graph.unlink()
    assert list(list_engines(Path("engines"))) == [folder]
    (folder / "denoiser.rtx.engine").unlink()
    assert list(list_engines(Path("engines"))) == []


def test_the_doctor_says_of_each_set_what_runs_here_and_why_not(built):
    folder = shutil.copytree(built, "engines/toy")
    done = dc_rt("doctor", COLUMNS="400", **NO_GPU)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "engines/toy:" in line]
    assert len(lines) == 2
    assert re.match(r"-- +engines +engines/toy: toy, rtx fp32, profile toy: not used, as .*(GPU|driver)", lines[0])
    assert re.match(r"ok +engines +engines/toy: toy, onnx fp32, profile toy +used unless", lines[1])
    edit_build(Path(folder), version="1.0.0.1")
    assert "dc-export build engines/toy --flavour rtx" in dc_rt("doctor", COLUMNS="400", **NO_GPU).stdout
    (library,) = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["tensorrt"]]
    assert f"TensorRT-RTX {load_library('rtx').__version__}, but " in library


# Wrong engines.


def test_engines_of_another_version_are_refused(engine_set):
    edit_build(engine_set, version="1.0.0.1")
    installed = load_library("rtx").__version__
    assert_refused_by_name(
        engine_set, f"TensorRT-RTX 1.0.0.1, and {installed} is installed", f"dc-export build {engine_set} --flavour rtx"
    )
    assert "built with TensorRT-RTX 1.0.0.1" in load_engines(engine_set).why_not_tensorrt


@pytest.mark.parametrize("version", [None, 3, [], "", "latest"])
def test_a_version_that_is_none_is_another_one(engine_set, version):
    edit_build(engine_set, version=version)
    with pytest.raises(Unavailable, match="is installed"):
        load_engines(engine_set, "tensorrt")


def test_engines_of_another_platform_are_refused(engine_set):
    edit_build(engine_set, platform="win32-amd64")
    assert_refused_by_name(
        engine_set, f"built for win32-amd64, and this is {this_platform()}", "dc-export build .*--flavour rtx"
    )


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed too")
def test_engines_of_the_other_flavour_are_refused(engine_set):
    record = json.loads((engine_set / "manifest.json").read_text())
    record["builds"] = {"tensorrt": record["builds"]["rtx"]}
    (engine_set / "manifest.json").write_text(json.dumps(record))
    assert_refused_by_name(
        engine_set,
        "for TensorRT, which is not installed but TensorRT-RTX is",
        rf"dc-export build {engine_set} --flavour rtx",
        r"pip install .*\[tensorrt\]'",
    )


def test_engines_that_are_not_all_there_are_refused(engine_set):
    record = json.loads((engine_set / "manifest.json").read_text())
    engines = record["builds"]["rtx"]["engines"]
    edit_build(engine_set, engines={graph: engines[graph] for graph in GRAPHS[:3]})
    assert_refused_by_name(engine_set, "not all of this set's TensorRT-RTX engines", "dc-export build .*--flavour rtx")


def test_truncated_changed_and_missing_engines_are_refused(engine_set):
    path = engine_set / "denoiser.rtx.engine"
    contents = path.read_bytes()
    path.write_bytes(contents[:-100])
    assert_refused_by_name(engine_set, "denoiser.rtx.engine has .* bytes where", "dc-export build .*--flavour rtx")
    changed = bytearray(contents)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    assert_refused_by_name(engine_set, "denoiser.rtx.engine was changed", "dc-export build .*--flavour rtx")
    path.unlink()
    assert_refused_by_name(engine_set, "lacks denoiser.rtx.engine", "dc-export build .*--flavour rtx")


def test_damaged_engines_do_not_hinder_onnx_runtime(engine_set):
    (engine_set / "denoiser.rtx.engine").write_bytes(b"")
    assert infer(engine_set, "--backend", "onnx").returncode == 0


@pytest.mark.parametrize("contents", [b"", b"x" * 20, b"not an engine" * 1000])
def test_what_is_no_engine_is_told_by_its_header(engine_set, contents):
    path = engine_set / "denoiser.rtx.engine"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r"denoiser.rtx.engine here \(malformed engine\); build the engines again"):
        tensorrt.Shared("rtx").check_validity(path)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a driver that suffices")
def test_an_engine_that_a_machine_cannot_run_is_judged_unavailable(built):
    """Not wrong: with `--backend auto` ONNX Runtime takes its place."""
    with pytest.raises(Unavailable) as error:
        tensorrt.Shared("rtx").check_validity(built / "denoiser.rtx.engine")
    assert re.search(r"cannot run .*denoiser.rtx.engine here \(.*cuda.*\)", error.value.reason)
    assert "driver" in error.value.fix


class ManyProfiles:
    """What `choose_profile` asks an `ICudaEngine` for; no machine without a GPU can load a real one."""

    num_optimization_profiles = 3
    WIDTHS = ((64, 64), (96, 128), (256, 256))

    def get_tensor_shape(self, name):
        return () if name == "sigma" else (1, -1, 4, -1)

    def get_tensor_profile_shape(self, name, number):
        low, high = self.WIDTHS[number]
        return (1, 1, 4, low), (1, 8, 4, high), (1, 110, 4, high)


@pytest.mark.parametrize(
    ("shape", "number"),
    [((1, 110, 4, 64), 0), ((1, 1, 4, 96), 1), ((1, 5, 4, 256), 2), ((1, 5, 4, 80), None), ((1, 111, 4, 64), None)],
)
def test_a_shape_runs_in_the_optimisation_profile_that_has_it(shape, number):
    assert tensorrt.choose_profile(ManyProfiles(), {"noisy": shape, "sigma": ()}) == number


def test_weights_are_not_streamed_that_were_not_built_for_it(built):
    manifest = Manifest.read(built).built("rtx")
    with pytest.raises(UserError, match=rf"dc-export build {built} --flavour rtx --weight-streaming"):
        tensorrt.open_engines(built, manifest, "sequential")


@pytest.mark.parametrize(
    ("capability", "targets", "runs"),
    [
        ((8, 6), TARGETS, True),
        ((8, 7), TARGETS, False),
        ((9, 0), TARGETS, False),
        ((7, 5), TARGETS, False),
        ((12, 0), TARGETS, True),
        ((12, 1), TARGETS, True),
        ((13, 0), TARGETS, True),
        ((12, 1), ("12.0",), False),
        ((10, 0), ("8.0+",), True),
        ((8, 6), ("8.10",), False),
        ((8, 6), (), False),
        ((8, 6), ("", "+", "x"), False),
    ],
)
def test_a_gpu_is_held_against_the_targets(capability, targets, runs):
    assert is_target(capability, targets) == runs


def test_targets_are_told_in_words():
    assert describe_targets(TARGETS) == "8.0, 8.6, 8.9 and 12.0 or later"
    assert describe_targets(["9.0"]) == "9.0"
    assert describe_targets([]) == "none"


def test_versions_are_compared_by_their_first_four_numbers():
    assert version_numbers("1.7.1.116") == version_numbers("1.7.1.116.post1") == (1, 7, 1, 116)
    assert version_numbers("11.0.0.21") != version_numbers("11.0.0.20")
    assert version_numbers("10.1") > version_numbers("9.9")


# Parts that need no GPU.


def test_an_error_of_cuda_has_its_name():
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    with pytest.raises(cuda.CudaError, match=r"cudaDeviceGetAttribute: cudaError\w+ \(.+\)") as error:
        cuda.call("cudaDeviceGetAttribute", cuda.runtime().cudaDeviceAttr.cudaDevAttrWarpSize, 99)
    assert error.value.name in ("cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorInvalidDevice")


FOLDER = Path("engines/toy")


def advice(offload="none", one_size=False, low_memory=False, streamable=False):
    return tensorrt.Advice(FOLDER, offload, one_size, low_memory, streamable)


def test_a_full_gpu_is_one_sentence_that_says_what_to_try():
    sentence = str(cuda.OutOfMemory("the workspace of denoiser.rtx.engine", fix=advice().on_workspace("denoiser")))
    for fix in (
        "window_size or max_res",
        "cpu_offload='model'",
        "dc-export onnx --target tensorrt --low-memory",
    ):
        assert fix in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("given", "what", "expected", "absent"),
    [
        # Graphs in that form already, the one graph that it changes nothing of, and what is no workspace.
        (advice(low_memory=True).on_workspace("denoiser"), "workspace", "dc-export build", "--low-memory"),
        (advice().on_workspace("clip_encoder"), "workspace", "dc-export build", "--low-memory"),
        (advice().on_weights(), "weights", "cpu_offload='model'", "--low-memory"),
        (advice().on_weights(), "weights", "cpu_offload='model'", "max_res"),
        (advice().on_arrays(), "arrays", "window_size or max_res", "--low-memory"),
        # What is done already.
        (advice("model").on_weights(), "weights", "--weight-streaming", "cpu_offload='model'"),
        (advice("model", streamable=True).on_weights(), "weights", "cpu_offload='sequential'", "dc-export build"),
        (advice("sequential", streamable=True).on_weights(), "weights", "nvidia-smi", "cpu_offload"),
        # Of several sizes the one that takes the least.
        (
            dataclasses.replace(advice(one_size=True), least="640x384 takes 3.1 GB").on_workspace("denoiser"),
            *("workspace", "max_res (640x384 takes 3.1 GB)", "window_size"),
        ),
        # Memory that is laid out for one size and the longest window.
        (advice(one_size=True).on_workspace("denoiser"), "workspace", "dc-export build", "window_size"),
        (advice(one_size=True).on_arrays(), "arrays", "window_size", "max_res"),
    ],
)
def test_a_full_gpu_is_advised_what_can_help_it_alone(given, what, expected, absent):
    sentence = str(UserError(given))
    assert expected in sentence
    assert absent not in sentence


def test_memory_of_the_computer_is_not_called_that_of_the_gpu():
    assert "The computer has too little memory" in str(cuda.OutOfMemory("frames of denoiser.engine", "computer"))


def test_the_advice_knows_how_a_set_is_built_and_run(built):
    manifest = Manifest.read(built).built("rtx")
    assert tensorrt.Advice.on(built, manifest, "model") == tensorrt.Advice(built, "model", False, False, False)


def test_a_kernel_cache_is_replaced_whole_and_read_back(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    path = folder / "denoiser.rtx.cache"
    assert tensorrt.read_cache(path) == b""
    for contents in (b"kernels" * 1000, b"others"):
        tensorrt.write_cache(path, contents)
        assert tensorrt.read_cache(path) == contents
    assert list(folder.iterdir()) == [path]


def test_a_kernel_cache_that_cannot_be_kept_or_read_is_noted_and_done_without(tmp_path, caplog):
    folder = tmp_path / "set"
    taken = folder / "denoiser.rtx.cache"
    taken.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert tensorrt.read_cache(taken) == b""
        tensorrt.write_cache(taken, b"kernels")
        tensorrt.write_cache(folder / "gone" / "denoiser.rtx.cache", b"kernels")
    assert ["cannot be read" in caplog.text, caplog.text.count("cannot be kept")] == [True, 2]
    assert list(folder.iterdir()) == [taken]


class RecordingEngine:
    """An engine of some other backend, which holds something that must be closed."""

    open_now: ClassVar[list[str]] = []

    def __init__(self, graph):
        if graph == "vae_decoder" and "denoiser" in self.open_now:
            raise UserError("The memory is full.")
        self.graph = graph
        self.open_now.append(graph)

    def __call__(self, **inputs):
        return {"output": np.ones(1)}

    def close(self):
        self.open_now.remove(self.graph)


@pytest.fixture
def open_now():
    RecordingEngine.open_now = []
    return RecordingEngine.open_now


def test_one_engine_is_closed_before_the_next_is_opened(open_now):
    engines = EngineSet(Manifest.read(BUNDLED), "other", "here", RecordingEngine, one_resident=True)
    for graph in GRAPHS:
        engines(graph)
        assert RecordingEngine.open_now == [graph]
    engines.close()
    engines.close()
    assert RecordingEngine.open_now == []


def test_when_one_engine_cannot_be_opened_the_others_are_closed(open_now):
    with pytest.raises(UserError, match="full"):
        EngineSet(Manifest.read(BUNDLED), "other", "here", RecordingEngine, one_resident=False)
    assert RecordingEngine.open_now == []


# ONNX Runtime with its inputs and outputs bound.


def inputs_of(graph, n, height, width, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    frames = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    latents = (n, 4, height // 8, width // 8)
    return {
        "clip_encoder": {"frames": frames, "resize_rows": normal(224, height), "resize_cols": normal(224, width)},
        "vae_encoder": {"frames": frames, "noise": normal(n, 3, height, width)},
        "denoiser": {
            "noisy": normal(1, *latents),
            "sigma": np.asarray(1.5, np.float32),
            "image_latents": normal(1, *latents),
            "embeddings": normal(1, n, EMBEDDING_DIM),
        },
        "vae_decoder": {"latents": normal(*latents)},
    }[graph]


@pytest.mark.parametrize("graph", GRAPHS)
def test_bound_inputs_and_outputs_change_no_bit(graph):
    engine = OnnxEngine(BUNDLED / f"{graph}.onnx")
    session = ort.InferenceSession(BUNDLED / f"{graph}.onnx", providers=["CPUExecutionProvider"])
    results = []
    for seed, size in enumerate([(3, 64, 128), (2, 128, 64), (2, 128, 64)]):
        inputs = inputs_of(graph, *size, seed=seed)
        (result,) = engine(**inputs).values()
        results.append((result, session.run(None, inputs)[0]))
    # Compared at the end: a result must outlive the runs after it.
    for result, expected in results:
        np.testing.assert_array_equal(result, expected)
    assert not np.array_equal(results[1][0], results[2][0])


def test_bound_inputs_need_not_be_contiguous():
    engine = OnnxEngine(BUNDLED / "vae_decoder.onnx")
    latents = inputs_of("vae_decoder", 2, 64, 128)["latents"]
    turned = latents.transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(engine(latents=turned)["depth"], engine(latents=turned.copy())["depth"])


def test_memory_that_does_not_suffice_is_told_in_a_sentence(tmp_path):
    """A tensor of 2^50 numbers, which no machine has room for."""
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [1])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("ConstantOfShape", ["size"], ["out"])], "graph", [size], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "g.onnx")
    engine = OnnxEngine(tmp_path / "g.onnx")
    assert engine(size=np.array([3]))["out"].shape == (3,)
    with pytest.raises(UserError, match=r"There is not enough memory to run g.onnx .*; try .*window_size"):
        engine(size=np.array([2**50]))


# Runs on a GPU.


def why_no_gpu():
    try:
        gpu = find_gpu()
    except Unavailable as error:
        return error.reason
    return "" if is_target(gpu.capability, TARGETS) else f"TensorRT-RTX builds no engines for the GPU ({gpu})"


gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(why_no_gpu()), reason=why_no_gpu() or "there is a GPU")]


def on(*marks):
    def decorate(test):
        for mark in marks:
            test = mark(test)
        return test

    return decorate


@pytest.fixture
def opened(built):
    engines = load_engines(built, "tensorrt")
    yield engines
    engines.close()


def assert_close(actual, expected):
    # TensorRT may use TF32, whose products have 10 bits.
    np.testing.assert_allclose(actual, expected, atol=5e-3 * max(expected.std(), 1e-3))


@on(*gpu)
@pytest.mark.parametrize("graph", GRAPHS)
def test_an_engine_gives_what_onnx_runtime_gives_at_changing_shapes(built, opened, graph):
    reference = OnnxEngine(built / f"{graph}.onnx")
    for seed, size in enumerate([(3, 64, 128), (8, 128, 192), (1, 64, 64), (3, 64, 128), (12, 256, 256)]):
        inputs = inputs_of(graph, *size, seed=seed)
        (expected,) = reference(**inputs).values()
        assert_close(opened(graph, **inputs), expected)


@on(*gpu)
def test_a_video_gives_the_depth_that_onnx_runtime_gives(built):
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 128, 3), dtype=np.uint8)

    def run(**options):
        model = DepthCrafter.load(built, **options)
        depth = np.stack(list(model(frames, window_size=8, overlap=3, guidance_scale=2.0, noise=Noise(1))))
        model.engines.close()
        return depth

    expected = run(backend="onnx")
    depth = run()
    assert np.abs(depth - expected).mean() < 3e-3
    np.testing.assert_array_equal(run(cpu_offload="model"), depth)
    np.testing.assert_array_equal(run(), depth)


@on(*gpu)
def test_repeated_runs_of_the_denoiser_give_the_same_bits_as_the_first(opened):
    """From the second run on it is a CUDA graph that runs; another shape between must not confuse it."""
    first, other = inputs_of("denoiser", 5, 64, 64), inputs_of("denoiser", 5, 64, 64, seed=1)
    expected = [opened("denoiser", **inputs) for inputs in (first, other)]
    for _ in range(4):
        for inputs, result in zip((first, other), expected, strict=True):
            np.testing.assert_array_equal(opened("denoiser", **inputs), result)
    opened("denoiser", **inputs_of("denoiser", 9, 128, 128))
    np.testing.assert_array_equal(opened("denoiser", **first), expected[0])


@on(*gpu)
def test_the_engines_share_one_workspace_and_notice_when_it_moves(built):
    shared = tensorrt.Shared("rtx")
    denoiser, decoder = (
        tensorrt.TensorRtEngine(built / f"{graph}.rtx.engine", shared, capture=graph == "denoiser", streamed=False)
        for graph in ("denoiser", "vae_decoder")
    )
    inputs = inputs_of("denoiser", 2, 64, 64)
    expected = denoiser(**inputs)["denoised"]
    np.testing.assert_array_equal(denoiser(**inputs)["denoised"], expected)
    shared.stream.wait()
    shared.workspace.reserve(shared.workspace.size + (64 << 20), "the test")
    decoder(**inputs_of("vae_decoder", 2, 64, 64))
    np.testing.assert_array_equal(denoiser(**inputs)["denoised"], expected)
    denoiser.close()
    decoder.close()


@on(*gpu)
def test_closing_gives_the_memory_back(built):
    def used_after_a_run(folder, **options):
        engines = load_engines(folder, "tensorrt", **options)
        for graph in GRAPHS:
            engines(graph, **inputs_of(graph, 8, 256, 256))
        engines.close()
        return cuda.free_bytes()

    used_after_a_run(built)  # CUDA's own, once
    free = [used_after_a_run(built, cpu_offload=offload) for offload in ("none", "model") * 3]
    assert max(free) - min(free) < 32 << 20


@on(*gpu)
def test_weights_are_streamed(tmp_path):
    folder = add_engines(make_onnx_set(tmp_path / "set"), weight_streaming=True)
    streamed = load_engines(folder, "tensorrt", "sequential")
    whole = load_engines(folder, "tensorrt")
    for graph in GRAPHS:
        inputs = inputs_of(graph, 3, 64, 128)
        assert_close(streamed(graph, **inputs), whole(graph, **inputs))
    streamed.close()
    whole.close()


@on(*gpu)
def test_the_kernel_cache_is_kept_beside_the_engine_and_a_bad_one_replaced(engine_set, caplog):
    def run():
        engines = load_engines(engine_set, "tensorrt")
        result = engines("denoiser", **inputs_of("denoiser", 3, 64, 128))
        engines.close()
        return result

    expected = run()
    cache = engine_set / "denoiser.rtx.cache"
    good = cache.read_bytes()
    assert good
    np.testing.assert_array_equal(run(), expected)
    cache.write_bytes(b"not a cache")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(run(), expected)
    assert "compiled anew" in caplog.text
    assert len(cache.read_bytes()) > len(good) // 2


@on(*gpu)
def test_a_shape_outside_the_profile_is_one_sentence(opened):
    with pytest.raises(UserError, match=r"latents of \[1, 4, 8, 8\] to \[12, 4, 32, 32\], not \[13, 4, 8, 8\]; build"):
        opened("vae_decoder", **inputs_of("vae_decoder", 13, 64, 64))
    opened("vae_decoder", **inputs_of("vae_decoder", 12, 64, 64))


@on(*gpu)
def test_engines_for_other_gpus_are_refused_with_the_name_of_this_one(engine_set):
    edit_build(engine_set, compute_capabilities=["1.0", "99.0+"])
    build = Manifest.read(engine_set).builds["rtx"]
    with pytest.raises(Unavailable, match=re.escape(find_gpu().name)):
        check_gpu(engine_set, build, "rtx")
    assert "compute capability 1.0 and 99.0 or later" in load_engines(engine_set).why_not_tensorrt


@on(*gpu)
def test_an_engine_that_breaks_inside_is_one_sentence(engine_set):
    path = engine_set / "denoiser.rtx.engine"
    path.write_bytes(path.read_bytes()[:2000])
    record = json.loads((engine_set / "manifest.json").read_text())
    record["builds"]["rtx"]["engines"]["denoiser"]["file"] = dataclasses.asdict(File.of(path))
    (engine_set / "manifest.json").write_text(json.dumps(record))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in (engine_set / "manifest.json").read_text()
    with pytest.raises(UserError, match="build the engines again"):
        load_engines(engine_set, "tensorrt")


@on(*gpu)
def test_a_run_says_which_gpu_and_library_it_uses(built):
    assert choose_build(built, Manifest.read(built), named=False).flavour == "rtx"
    write_clip(Path("clip.mp4"), moving_gradient(12, 64, 96, seed=0), Fraction(24))
    done = dc_rt("infer", "clip.mp4", *FAST, "--engines", built)
    assert done.returncode == 0, done.stderr
    assert f"tensorrt on {find_gpu().name}, TensorRT-RTX" in done.stdout.splitlines()[0]
    assert json.loads(Path("demo_output/clip.json").read_text())["engines"]["flavour"] == "rtx"


@pytest.mark.parametrize(
    ("frames", "expected"), [(110, True), (64, True), (30, True), (16, True), (57, False), (1, False)]
)
def test_kernels_are_compiled_for_windows_of_the_lengths_that_people_give(frames, expected):
    shapes = {"noisy": (1, frames, 4, 72, 128), "sigma": (), "image_latents": (1, frames, 4, 72, 128)}
    assert tensorrt.is_specialised(shapes) == expected
    assert tensorrt.is_specialised({"latents": (5, 4, 72, 128)})
