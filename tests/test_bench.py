"""The benchmarks' own parts: what they count, fit, compare and print. Nothing here is timed."""

import argparse
import dataclasses
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from bench.accuracy import nano
from bench.children import Child, ChildFailed
from bench.clips import clip_frames
from bench.parity import compare as parity
from bench.parity.report import draw
from bench.speed import cpu_settings, installed, latency, readme_table, scaling, worker
from bench.speed.backends import BACKENDS, EAGER, ON_REQUEST, Backend, wrap
from bench.speed.flops import Cost, count, count_model
from bench.speed.worker import STAGES, Run, Task, run_clip
from dc_rt import UserError
from dc_rt.engine import Manifest, Profile, Range
from dc_rt.engine.discovery import BUNDLED
from dc_rt.options import Sampling
from depthcrafter.nano.scenes import Clip
from media_helpers import moving_gradient, write_clip

ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("bench/latency.py", "bench/evaluate.py", "bench.gpu_check", "bench.parity", "bench.accuracy.nano"),
    "bench.accuracy.upsampling",
    *("bench.speed.scaling", "bench.speed.readme_table", "bench.soak.docker", "bench.soak.scene"),
    *("bench.soak.kill", "bench.soak.corruption", "bench.soak.memory", "bench.soak.overlap"),
    *("bench.soak.size", "bench.soak.batch", "bench.soak.array", "bench.soak.page", "bench.soak.serve"),
    "bench.soak.view",
    "bench.soak.comfyui",
    "bench.soak.blender",
    "bench.soak.app",
)
DEMO = ROOT / "examples" / "demo.mp4"


# Counting operations


def model_of(nodes, inputs, outputs, initializers=()):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "graph", values, results, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def weights(name, *shape):
    return helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape, np.float32).ravel())


def integers(name, *values):
    return helper.make_tensor(name, TensorProto.INT64, (len(values),), values)


def test_a_matrix_product_is_two_operations_a_multiplication():
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    model = model_of([node], {"a": [5, "n", 3], "b": [3, 7]}, ["c"])
    assert count_model(model, {"n": 2}) == [Cost(2 * 5 * 2 * 7 * 3, 4 * (5 * 2 * 3 + 3 * 7 + 5 * 2 * 7))]


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_sums_over_the_right_axis(transposed):
    node = helper.make_node("Gemm", ["a", "b", "bias"], ["c"], transA=transposed, transB=1)
    shape = [3, 2] if transposed else [2, 3]
    (cost,) = count_model(model_of([node], {"a": shape, "b": [7, 3], "bias": [7]}, ["c"]), {})
    assert cost == Cost(2 * 2 * 7 * 3, 4 * (2 * 3 + 7 * 3 + 7 + 2 * 7))


def test_a_convolution_counts_its_stride_padding_and_groups():
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], group=2)
    (cost,) = count_model(model_of([node], {"x": ["n", 4, 8, 6]}, ["y"], [weights("w", 10, 2, 3, 3)]), {"n": 3})
    outputs = 3 * 10 * 4 * 3  # (8 + 2 - 3) // 2 + 1 = 4 high, (6 + 2 - 3) // 2 + 1 = 3 wide
    assert cost == Cost(2 * outputs * 2 * 3 * 3, 4 * (3 * 4 * 8 * 6 + 10 * 2 * 3 * 3 + outputs))


def test_attention_is_two_products_however_its_heads_are_laid_out():
    batch, heads, queries, keys, width, values = 2, 4, 5, 6, 8, 3
    flops = 2 * batch * heads * queries * keys * (width + values)
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    shapes = {
        "q": [batch, heads, queries, width],
        "k": [batch, heads, keys, width],
        "v": [batch, heads, keys, values],
    }
    (cost,) = count_model(model_of([node], shapes, ["y"]), {})
    assert cost.flops == flops
    flat = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=heads, kv_num_heads=heads)
    shapes = {name: [batch, shape[2], heads * shape[3]] for name, shape in shapes.items()}
    (cost,) = count_model(model_of([flat], shapes, ["y"]), {})
    assert cost.flops == flops


def test_shapes_that_the_graph_computes_are_followed():
    """A reshape to [n * h, -1], as the exporter writes it, behind a node that onnx's own inference stops at."""
    nodes = [
        helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["normal"], num_groups=2),
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Shape", ["x"], ["h"], start=2, end=3),
        helper.make_node("Mul", ["n", "h"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["normal", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = [weights("scale", 4), weights("bias", 4), weights("w", 20, 6), integers("rest", -1)]
    (cost,) = count_model(model_of(nodes, {"x": ["n", 4, "h", 5]}, ["y"], constants), {"n": 3, "h": 7})
    assert cost.flops == 2 * (3 * 7) * 20 * 6


def test_what_is_not_understood_is_not_counted_as_nothing():
    node = helper.make_node("Einsum", ["a", "b"], ["c"], equation="ij,jk->ik")
    with pytest.raises(ValueError, match="Einsum"):
        count_model(model_of([node], {"a": [2, 3], "b": [3, 4]}, ["c"]), {})
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="axis n"):
        count_model(model_of([node], {"a": ["n", 3], "b": [3, 4]}, ["c"]), {})


def test_the_bundled_graphs_are_counted_whole():
    sizes = {"n": 2, "T": 2, "H": 64, "W": 128, "h": 8, "w": 16}
    for graph in ("clip_encoder", "vae_encoder", "denoiser", "vae_decoder"):
        path = BUNDLED / f"{graph}.onnx"
        products = [
            node for node in onnx.load(path).graph.node if node.op_type in ("MatMul", "Gemm", "Conv", "Attention")
        ]
        costs = count(path, sizes)
        # Products of constants are worked out before they are run.
        assert 0.9 * len(products) <= len(costs) <= len(products)
        # Twice the frames are twice the work, but for attention between frames and what is done once a video.
        twice = sum(cost.flops for cost in count(path, sizes | {"n": 4, "T": 4}))
        ratio = twice / sum(cost.flops for cost in costs)
        assert 1.9 < ratio < 2.1


def test_the_roofline_is_whichever_takes_longer():
    assert Cost(1000, 10).seconds(flops_per_second=100, bytes_per_second=10) == 10
    assert Cost(1000, 1000).seconds(flops_per_second=100, bytes_per_second=10) == 100


# Installed size


def write_distribution(folder, name, requires=(), files=None):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    for path, content in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    lines += [f"Provides-Extra: {extra}" for extra in ("heavy", "absent")]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires)]) + "\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files or {}))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Distributions that require one another, on the path."""
    folder = tmp_path / "site"
    needs = ("Bench_Light>=0.5", "bench-heavy; extra == 'heavy'", "bench-nowhere; extra == 'absent'")
    write_distribution(folder, "bench_root", needs, {"root/a.py": "12345"})
    write_distribution(
        folder, "bench_light", ("bench_other; python_version < '3'",), {"light.py": "123", "shared": "1"}
    )
    write_distribution(folder, "bench_heavy", ("bench_deep[heavy]",), {"heavy.py": "1234567", "shared": "1"})
    write_distribution(folder, "bench_deep", ("bench_root", "bench_deepest; extra == 'heavy'"), {"deep.py": "12"})
    write_distribution(folder, "bench_deepest", (), {"deepest.py": "1" * 100})
    write_distribution(folder, "bench_other", (), {"other.py": "1" * 1000})
    monkeypatch.syspath_prepend(folder)


def test_the_closure_follows_requirements_extras_and_markers(site):
    assert installed.closure("bench-root") == {"bench-root", "bench-light"}
    everything = {"bench-root", "bench-light", "bench-heavy", "bench-deep", "bench-deepest"}
    assert installed.closure("bench_root", ["heavy"]) == everything


def test_an_extra_that_is_not_installed_has_no_size(site):
    assert installed.closure("bench-root", ["absent"]) is None


def test_sizes_add_up_and_shared_files_count_once(site):
    assert installed.size_of(["bench-root"]) == 5
    assert installed.size_of(["bench-light", "bench-heavy"]) == 3 + 7 + 1


def test_the_export_environment_is_larger_than_the_base_one():
    base, export = installed.installed_bytes([]), installed.installed_bytes(["export"])
    assert 10e6 < base < 0.5 * export
    assert "torch" not in installed.closure(installed.OURS)
    assert "torch" in installed.closure(installed.OURS, ["export"])


# Growth


def test_growth_is_the_power_that_made_the_numbers():
    x = [1.0, 2.0, 5.0, 10.0]
    square = scaling.fit_growth(x, [3 * value**2 for value in x])
    assert square.exponent == pytest.approx(2)
    assert square.r_squared == pytest.approx(1)
    line = scaling.fit_growth(x, [3 * value for value in x])
    assert (line.exponent, line.slope) == pytest.approx((1, 3))
    assert line.constant == pytest.approx(0, abs=1e-9)


def test_what_does_not_grow_has_exponent_zero():
    flat = scaling.fit_growth([1, 2, 4], [700.0, 700.0, 700.0])
    assert flat.exponent == pytest.approx(0, abs=1e-9)
    assert flat.slope == pytest.approx(0, abs=1e-9)
    assert flat.constant == pytest.approx(700)
    assert flat.r_squared == 1


def test_noise_that_does_not_grow_is_not_explained():
    assert scaling.fit_growth([1, 2, 4, 8], [5.0, 7.0, 5.0, 7.0]).r_squared < 0.3


def test_growth_needs_two_different_values():
    with pytest.raises(ValueError, match="two"):
        scaling.fit_growth([4, 4], [1.0, 2.0])


def test_growth_reads_as_a_sentence():
    growth = scaling.Growth(exponent=0.983, r_squared=0.9991, constant=1.23, slope=0.031)
    assert (
        scaling.in_a_sentence(growth, "time", "s", "frames")
        == "time ~ frames^0.98 (R2 0.999), or 1.23 s + 0.031 s x frames"
    )


TASK = Task(BUNDLED, DEMO, 64, 64, 8, Sampling(window_size=6, overlap=2, steps=1))


def test_one_option_is_varied_at_a_time():
    assert [(x, task.frames) for x, task in scaling.tasks_along("frames", TASK, [4, 8])] == [(4, 4), (8, 8)]
    ((x, task),) = scaling.tasks_along("resolution", TASK, [(64, 128)])
    assert (x, task.height, task.width, task.frames) == (64 * 128, 64, 128, 8)
    ((x, task),) = scaling.tasks_along("window", TASK, [12])
    assert (x, task.sampling.window_size, task.sampling.overlap) == (12, 12, 4)
    ((x, task),) = scaling.tasks_along("steps", TASK, [3])
    assert (x, task.sampling.steps) == (3, 3)


# Running


def test_a_short_clip_is_taken_over_and_over():
    clip = write_clip(Path("clip.mp4"), moving_gradient(5, 64, 64))
    frames = list(clip_frames(clip, 64, 64, 7))
    assert len(frames) == 7
    assert np.array_equal(frames[5], frames[0])
    assert not np.array_equal(frames[0], frames[4])


def test_the_stages_add_up_and_every_run_of_a_graph_is_counted(bundled, tmp_path):
    run = run_clip(bundled.engines, TASK, tmp_path, tmp_path / "depth")
    assert set(run.seconds) == set(STAGES)
    assert all(seconds > 0 for seconds in run.seconds.values())
    # Two windows, of 6 frames and of 4, of which 2 are shared.
    expected = {"clip_encoder": {6: 1, 2: 1}, "vae_encoder": {6: 1, 2: 1}, "denoiser": {6: 1, 4: 1}}
    assert run.calls == expected | {"vae_decoder": {8: 1}}
    assert (tmp_path / "depth").stat().st_size == 4 * 8 * 64 * 64


def test_the_process_of_onnx_runtime_holds_nothing_of_the_others():
    code = f"""
import sys
from pathlib import Path
from bench.speed.worker import Task, open_backend, run_task
from dc_rt.options import Sampling
engines = Path({str(BUNDLED)!r})
open_backend("onnx", engines)
run_task("onnx", Task(engines, Path({str(DEMO)!r}), 64, 64, 2, Sampling(window_size=2, overlap=0, steps=1)), None)
print([module for module in ("torch", "onnx", "diffusers", "matplotlib") if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_backends_take_turns_and_one_that_fails_is_left_out():
    task = Task(BUNDLED, DEMO, 64, 64, 2, Sampling(window_size=2, overlap=0, steps=1))
    found, order = latency.measure(["onnx", "tensorrt"], task, runs=2, fresh=False)
    assert order == ["onnx", "onnx"]
    assert len(found["onnx"]["runs"]) == 2
    assert found["onnx"]["peak_memory_mb"] > 10
    assert "this set has no engines for it" in found["tensorrt"]["failed"]


def test_an_absent_backend_has_its_reason(monkeypatch):
    monkeypatch.setitem(
        BACKENDS, "new", Backend("New", lambda engines: "it is not invented yet", BACKENDS["onnx"].load)
    )
    names, absent = latency.choose_backends(None, BUNDLED)
    assert {"onnx", EAGER} <= set(names)
    assert absent["new"] == "it is not invented yet"
    assert set(names) | set(absent) == set(BACKENDS) - set(ON_REQUEST)


def test_the_speed_up_compares_runs_of_the_same_round():
    def run(seconds):
        return Run(dict.fromkeys(STAGES, seconds / len(STAGES)), {})

    ours, theirs = [run(1.0), run(2.0), run(1.0)], [run(3.0), run(4.0), run(5.0)]
    result = latency.summary(ours, theirs, frames=10)
    assert result["speed_up"] == pytest.approx({"median": 3, "min": 2, "max": 5})
    assert result["speed_up_of_the_model"] == pytest.approx({"median": 3, "min": 2, "max": 5})
    assert result["ms_per_frame"]["all"] == pytest.approx({"median": 100, "min": 100, "max": 200})
    assert "speed_up" not in latency.summary(ours, [], frames=10)


def test_what_was_measured_is_written_printed_and_drawn():
    def found(seconds):
        run = Run(dict.fromkeys(STAGES, seconds), {"denoiser": {6: 1, 4: 1}, "clip_encoder": {8: 1}})
        memory = {"peak_memory_mb": 321.0, "peak_gpu_memory_mb": None}
        return {"runs": [run, run], "device": "the CPU", "load_seconds": 1.0, "first_run_seconds": 2.0} | memory

    measured = {"onnx": found(0.08), EAGER: found(0.16), "compile": {"runs": [], "failed": "it ran out of memory"}}
    absent = {"tensorrt": "it is not installed"}
    record = {"runs": 2} | latency.record_of(TASK, measured, absent, {"onnx": [(0.5, 1.0), (0.6, 1.5)]})
    record["roofline"] = latency.roofline(TASK, measured["onnx"]["runs"][0].calls, flops=1e11, traffic=1e10)
    record = json.loads(json.dumps(record))
    assert list(record["backends"]) == ["onnx", "tensorrt", EAGER, "compile"]
    assert record["backends"]["onnx"]["speed_up"]["median"] == pytest.approx(2)
    assert record["backends"]["onnx"]["ms_per_frame"]["all"]["median"] == pytest.approx(7 * 10)
    assert str(ROOT) not in json.dumps(record)

    file = io.StringIO()
    latency.report(record, Console(file=file, width=160))
    printed = file.getvalue()
    assert "torch.compile: failed, as it ran out of memory" in printed
    assert "TensorRT or TensorRT-RTX: absent, as it is not installed" in printed
    assert "2.00 [2.00, 2.00]" in printed
    assert "smallest and largest in brackets" in " ".join(printed.split())
    assert "plain matrix product 100 GFLOP/s, plain copy 10.0 GB/s" in printed
    latency.draw(record, Path("latency.png"))
    assert Path("latency.png").read_bytes().startswith(b"\x89PNG")
    assert "| PyTorch eager | 140 (140 to 140) | 20 | 1.00x" in readme_table.render([record])


@pytest.fixture
def fixed_set():
    """A set in ./engines that runs one size and short windows, and is of no other set's model."""
    folder = Path(shutil.copytree(BUNDLED, "engines/fixed"))
    manifest = Manifest.read(folder)
    profile = Profile("fixed", Range(64, 64, 64), Range(128, 128, 128), Range(1, 4, 4))
    dataclasses.replace(manifest, profile=profile, weights=None, created="2027-01-01").write(folder)
    return folder


def task_of(*options):
    parser = argparse.ArgumentParser()
    latency.add_task_options(parser)
    return latency.task_from(parser.parse_args(options))


def test_unless_a_size_is_asked_for_one_is_measured_that_the_engine_set_runs(fixed_set):
    task = task_of()
    assert (task.engines.name, task.height, task.width, task.sampling.window_size) == ("fixed", 64, 128, 4)
    task = task_of("--engines", str(BUNDLED))
    assert (task.engines, task.height, task.width, task.sampling.window_size) == (BUNDLED, 192, 320, 16)


def test_a_size_that_no_set_runs_is_refused_with_options_that_there_are(fixed_set):
    with pytest.raises(UserError) as error:
        task_of("--size", "320x192", "--window", "16")
    advised = re.search(r"try (--size \d+x\d+ --window \d+), or --engines", str(error.value))
    assert task_of(*advised[1].split()).engines == fixed_set.resolve()
    assert "--max-res" not in str(error.value)


def test_a_size_that_is_asked_for_chooses_the_set_as_a_video_does(fixed_set):
    manifest = Manifest.read(fixed_set)
    dataclasses.replace(manifest, weights=Manifest.read(BUNDLED).weights).write(fixed_set)
    assert task_of("--size", "128x64", "--window", "4").engines == fixed_set.resolve()
    assert task_of("--size", "320x192").engines == BUNDLED


def test_what_was_measured_is_kept_where_nothing_counts_operations_or_draws():
    """In the environment of the runtime alone."""
    options = ["--backends", "onnx", "--runs", "1", "--cold-runs", "0", "--size", "64x64", "--frames", "2"]
    options += ["--window", "2", "--steps", "1", "--engines", str(BUNDLED), "--results", "results"]
    code = f"""
import runpy, sys
for module in ("onnx", "torch", "matplotlib"):
    sys.modules[module] = None
sys.argv = ["latency.py", *{options!r}]
runpy.run_path({str(ROOT / "bench" / "latency.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "There is no roofline" in done.stdout
    assert "ONNX Runtime" in done.stdout
    found = json.loads(Path("results/latency.json").read_text())
    assert found["backends"]["onnx"]["ms_per_frame"]["all"]["median"] > 0


def test_results_that_cannot_be_written_are_refused_before_anything_is_measured():
    Path("results").write_text("a file")
    with pytest.raises(UserError, match=r"results cannot be written.*--name\.$"):
        latency.check_results(Path("results"), "latency")
    latency.check_results(Path("new"), "latency")
    assert not list(Path("new").iterdir())


# Where backends differ

OPTIONS = Sampling(steps=2, window_size=6, overlap=2)


@pytest.fixture(scope="module")
def frames():
    return list(clip_frames(DEMO, 64, 64, 12))  # three windows: 0 to 6, 4 to 10, 8 to 12


def planted(engines, graph, calls, amount=0.01):
    """Engines that are wrong in some runs of a graph, by their number in a video; every video starts anew."""
    number = 0

    def around(name, inputs, run):
        nonlocal number
        output = run(name, inputs)
        if name == graph:
            output = output + np.float32(amount) * (number in calls)
            number = (number + 1) % PER_VIDEO[graph]
        return output

    return wrap(engines, around)


PER_VIDEO = {"clip_encoder": 3, "vae_encoder": 3, "denoiser": 3 * OPTIONS.steps, "vae_decoder": 2}


def test_engines_do_not_differ_from_themselves(bundled, frames):
    comparison = parity.compare(bundled.engines, bundled.engines, frames[:8], OPTIONS)
    assert np.array_equal(comparison.depth, comparison.other)
    assert all(error.max == 0 for errors in (comparison.local, comparison.accumulated) for error in errors.values())
    assert comparison.local.keys() == comparison.accumulated.keys()


def test_a_planted_difference_is_found_in_its_window_and_step(bundled, frames):
    wrong = planted(bundled.engines, "denoiser", {1 * OPTIONS.steps + 1})
    comparison = parity.compare(bundled.engines, wrong, frames, OPTIONS)
    assert comparison.worst == parity.Place("denoiser", window=1, step=1)
    local = parity.by_window_and_step(comparison.local)
    assert local.shape == (3, 2)
    assert local[1, 1] == pytest.approx(0.01, rel=1e-3)
    assert np.count_nonzero(local) == 1
    # It goes on into the next window, by way of the overlap, and does not reach what came before.
    accumulated = parity.by_window_and_step(comparison.accumulated)
    assert accumulated[0].max() == accumulated[1, 0] == 0
    assert accumulated[1, 1] > 0
    assert accumulated[2].min() > 0
    changed = np.abs(comparison.depth - comparison.other).max(axis=(1, 2)) > 0
    assert changed[8:].all()


def test_a_planted_difference_is_found_in_its_encoder(bundled, frames):
    comparison = parity.compare(bundled.engines, planted(bundled.engines, "vae_encoder", {2}), frames, OPTIONS)
    assert comparison.worst == parity.Place("vae_encoder", window=2, step=0)
    assert [place for place, error in comparison.local.items() if error.max > 0] == [comparison.worst]


def test_guided_steps_are_told_apart(bundled, frames):
    options = Sampling(steps=2, guidance_scale=1.5, window_size=12, overlap=0)
    wrong = planted(bundled.engines, "denoiser", {3})  # of 4 runs: two steps, each with and without the condition
    comparison = parity.compare(bundled.engines, wrong, frames[:4], options)
    assert comparison.worst == parity.Place("denoiser", window=0, step=1)
    assert parity.by_window_and_step(comparison.local).shape == (1, 2)


def test_the_comparison_is_drawn(bundled, frames):
    wrong = planted(bundled.engines, "vae_decoder", {0})
    comparison = parity.compare(bundled.engines, wrong, frames[:3], Sampling(steps=1))
    draw(comparison, frames[:3], ("right", "wrong"), Path("parity.png"))
    assert Path("parity.png").read_bytes().startswith(b"\x89PNG")


# The README's table


def record(**changes):
    row = {
        "title": "ONNX Runtime",
        "ms_per_frame": {
            "denoiser": {"median": 30.04, "min": 29, "max": 31},
            "all": {"median": 123.4, "min": 120, "max": 150},
        },
        "speed_up": {"median": 1.8, "min": 1.75, "max": 1.9},
        "peak_memory_mb": 512.3,
        "peak_gpu_memory_mb": None,
        "cold_start_seconds": {"median": 1.26, "min": 1.2, "max": 1.3},
        "installed_mb": 1452.9,
    }
    return {
        "model": "nano",
        "precision": "fp32",
        "job": {"frames": 32, "width": 320, "height": 192, "window": 16, "steps": 5},
        "runs": 5,
        "machine": {"processor": "A processor", "cores": 2, "memory_gb": 16, "system": "Linux x86_64"},
        "versions": {"python": "3.11.7", "onnxruntime": "1.30.0"},
        "backends": {"onnx": row, "tensorrt": {"title": "TensorRT", "absent": "it is not installed"}},
    } | changes


def test_a_record_becomes_a_table():
    lines = readme_table.render([record()]).splitlines()
    assert lines[2] == ("| ONNX Runtime | **123** (120 to 150) | 30 | 1.80x (1.75 to 1.90) | 512 MB | 1.3 s | 1.5 GB |")
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "A processor, 2 cores, 16 GB; ONNX Runtime 1.30.0." in lines[5]
    assert lines[5].endswith("Not measured: TensorRT (it is not installed).")


def test_a_row_says_only_what_was_measured():
    bare = {
        "title": "torch.compile",
        "ms_per_frame": record()["backends"]["onnx"]["ms_per_frame"],
        "installed_mb": None,
    }
    (row,) = [
        line for line in readme_table.render([record(backends={"compile": bare})]).splitlines() if "compile" in line
    ]
    assert row == "| torch.compile | **123** (120 to 150) | 30 |  |  |  |  |"


def test_only_what_is_between_the_markers_is_replaced():
    readme = f"before\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n"
    once = readme_table.replaced(readme, "new\n")
    assert once == f"before\n{readme_table.BEGIN}\n\nnew\n\n{readme_table.END}\nafter\n"
    assert readme_table.replaced(once, "new\n") == once
    with pytest.raises(ValueError, match="must have the lines"):
        readme_table.replaced("no markers", "new")


def test_the_readmes_table_is_what_the_command_makes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == readme_table.replaced(
        readme,
        readme_table.render(
            readme_table.read_records(ROOT / "bench/results"), readme_table.read_limits(ROOT / "bench/results")
        ),
    )


def test_the_records_that_are_read_are_those_of_latency(tmp_path):
    for name in ("latency.json", "latency-gpu.json", "scaling.json"):
        (tmp_path / name).write_text(json.dumps({"name": name}))
    assert [found["name"] for found in readme_table.read_records(tmp_path)] == ["latency-gpu.json", "latency.json"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    """From anywhere, as a module; the two scripts likewise as files."""
    where = [str(ROOT / command)] if command.endswith(".py") else ["-m", command]
    done = subprocess.run([sys.executable, *where, "--help"], capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout


def test_a_child_keeps_its_state_gives_what_annotations_say_and_outlives_its_own_end():
    with Child(seconds=60) as child:
        assert child.call(os.getpid) == child.call(os.getpid)
        opened = child.call(worker.open_backend, "onnx", BUNDLED)
        assert isinstance(opened, worker.Opened)
        assert child.call(worker.run_task, "onnx", TASK, None).calls["denoiser"] == {6: 1, 4: 1}
        with pytest.raises(ChildFailed, match="this set has no engines for it") as failed:
            child.call(worker.open_backend, "tensorrt", BUNDLED)
        with pytest.raises(ChildFailed, match="status 7") as died:
            child.call(os._exit, 7)
        assert (failed.value.how, died.value.how) == ("failed", "died")
        assert child.call(os.getpid) != os.getpid()
    with Child(seconds=2) as child, pytest.raises(ChildFailed, match="over 2 s") as hung:
        child.call(time.sleep, 60)
    assert hung.value.how == "hung"


def changing(steps):
    """Depth [T,2,3] that changes everywhere by these from frame to frame."""
    return np.cumsum([0.0, *steps])[:, None, None] * np.ones((2, 3))


def test_a_seam_is_what_changes_more_where_windows_meet():
    # Three windows of 6 frames that share 2 begin at frames 0, 4 and 8, and share 4, 5 and 8, 9.
    steps = np.ones(13)
    assert nano.seam([changing(steps)], 6, 2) == pytest.approx(1)
    steps[[3, 4, 5, 7, 8, 9]] = 3
    assert nano.seam([changing(steps)], 6, 2) == pytest.approx(3)
    assert nano.seam([changing(np.ones(13)), changing(steps)], 6, 2) == pytest.approx(2)


def test_flicker_counts_what_stands_still_alone():
    truth = np.ones((3, 2, 3), np.float32)
    truth[1:, 0] = 2  # the upper row moves once
    found = changing([0.1, 0.3])
    found[1:, 0] += 5
    clip = Clip(np.zeros((3, 2, 3, 3), np.uint8), truth)
    # The lower row's 0.1, and both rows' 0.3.
    assert nano.flicker([found], [clip]) == pytest.approx((0.1 + 2 * 0.3) / 3)


# Settings of a CPU


def test_a_column_of_openvino_is_there_or_names_the_command():
    reason = BACKENDS["openvino"].missing(BUNDLED)
    if importlib.util.find_spec("openvino"):
        assert reason is None
    else:
        assert re.fullmatch(r"OpenVINO is not installed \(`.*\[openvino\].*`\)", reason or "")
        assert BACKENDS["openvino-bf16"].missing(BUNDLED) == reason


def test_a_setting_reaches_the_session():
    options = cpu_settings.SETTINGS["nodes in parallel, no spinning"].options()
    assert options.inter_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_settings_take_turns_and_give_the_same_depth():
    took = cpu_settings.take_turns(["defaults", "1 thread"], 2, cpu_settings.run_graph, "clip_encoder", 64, 64, 1)
    rows = cpu_settings.compare(took)
    assert list(rows) == ["defaults", "1 thread"]
    assert all(row["deterministic"] and row["same_bits"] for row in rows.values())
    assert rows["defaults"]["speed_up"] == {"median": 1, "min": 1, "max": 1}


def test_ratios_of_settings_are_of_the_same_round_and_other_bits_are_noticed():
    defaults = [cpu_settings.Took(2.0, 4.0, "a"), cpu_settings.Took(3.0, 6.0, "a")]
    other = [cpu_settings.Took(1.0, 1.0, "a"), cpu_settings.Took(6.0, 6.0, "b")]
    row = cpu_settings.compare({"defaults": defaults, "other": other})["other"]
    assert row["speed_up"] == {"median": 1.25, "min": 0.5, "max": 2}
    assert row["processor_time"] == 2.5
    assert not row["deterministic"]
    assert not row["same_bits"]
