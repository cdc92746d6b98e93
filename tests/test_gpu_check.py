"""What `make gpu-check` does, without a GPU: the same steps on the CPU, and its judgement of real results."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.children import ChildFailed, apart
from bench.clips import clip_frames
from bench.gpu_check import check as gpu_check
from bench.gpu_check import latency, parity
from bench.gpu_check.build import _dc_export
from bench.gpu_check.models import CHECKS
from bench.gpu_check.record import Record
from bench.gpu_check.rows import FAILED, MEASURED, MISSED, PASSED, SKIPPED, StepFailed
from bench.parity.compare import compare
from bench.speed.backends import EAGER, wrap
from dc_rt.engine import GRAPHS, Manifest, Profile, Range
from dc_rt.options import Sampling

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo.mp4"
OPTIONS = Sampling(steps=1, window_size=4, overlap=1)


def in_small(folder):
    """Have the graphs of an engine set be run at a small size: they run any."""
    small = Profile("small", Range(64, 64, 64), Range(64, 128, 128), Range(1, 4, 4))
    dataclasses.replace(Manifest.read(folder), profile=small).write(folder)


def gpu_checks(*words):
    command = [sys.executable, "-m", "bench.gpu_check", "--dry-run", "--model", "nano", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def test_the_dry_run_does_every_step_and_separate_calls_come_together(half_built, tmp_path):
    engines = shutil.copytree(half_built[0], tmp_path / "set")
    where = ("--engines", engines, "--results", tmp_path / "results")
    first = gpu_checks("--only", "build", *where)
    assert first.returncode == 0, first.stdout + first.stderr
    in_small(engines)
    second = gpu_checks("--only", "load,parity,latency", *where)
    assert second.returncode == 0, second.stdout + second.stderr

    record = json.loads((tmp_path / "results" / "gpu-check-dry-run.json").read_text())
    rows = {step: {row["what"]: row for row in entry["rows"]} for step, entry in record["steps"].items()}
    assert list(rows) == ["nano build", "nano load", "nano parity", "nano latency"]
    assert {f"engine of {graph}" for graph in GRAPHS} < set(rows["nano build"])
    assert rows["nano load"]["TensorRT"]["status"] == SKIPPED
    assert "driver" in rows["nano load"]["TensorRT"]["note"]
    assert rows["nano load"]["ONNX Runtime"]["status"] == PASSED
    parity_rows = rows["nano parity"]
    assert all(any(what.startswith(f"{graph}: mean") for what in parity_rows) for graph in GRAPHS)
    assert parity_rows["depth of the clip: mean and max error"]["target"] == "<= 0.003"
    assert {"black", "white", "noise", "a hard edge"} < {
        what.split(" of ", 1)[-1].split(":")[0] for what in parity_rows
    }
    assert {row["status"] for row in parity_rows.values()} == {PASSED, MEASURED}
    assert rows["nano latency"]["speed-up over PyTorch eager"]["status"] == MEASURED
    assert (tmp_path / "results" / "latency-nano-dry-run.json").exists()

    written = (tmp_path / "results" / "gpu-check-dry-run.md").read_text()
    for step in ("build", "load", "parity", "latency"):
        assert f"| nano | {step} |" in written
    assert "nothing here tells of a GPU" in written
    assert "depth of the clip: mean and max error" in second.stdout
    assert "all 4" in second.stdout, "the table has what the first call found"
    assert str(ROOT) not in written


def test_a_step_that_fails_is_told_of_and_the_others_are_done(tmp_path):
    """No folder at all: nothing can be built, loaded or timed."""
    only = ("--only", "build,load,parity,latency")
    done = gpu_checks(*only, "--engines", tmp_path / "nowhere", "--results", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    record = json.loads((tmp_path / "gpu-check-dry-run.json").read_text())
    statuses = {entry["step"]: {row["status"] for row in entry["rows"]} for entry in record["steps"].values()}
    assert statuses == {"build": {FAILED}, "load": {FAILED}, "parity": {SKIPPED}, "latency": {FAILED}}
    assert "There is no engine set" in record["steps"]["nano build"]["rows"][0]["note"]


@pytest.mark.skipif(gpu_check.gpu_name() is not None, reason="there is a GPU")
def test_without_a_gpu_only_a_dry_run_is_done(capsys):
    assert gpu_check.main(["--only", "build"]) == 1
    assert "--dry-run" in capsys.readouterr().err


def wrong(engines, graph, amount):
    """Engines of which one is wrong by `amount` everywhere."""

    def around(name, inputs, run):
        output = run(name, inputs)
        return output + np.float32(amount) if name == graph else output

    return wrap(engines, around)


def verdicts(rows):
    return {row.what.split(":")[0]: row.status for row in rows}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_that_is_wrong_misses_its_target_and_the_others_do_not(bundled, graph):
    frames = list(clip_frames(DEMO, 64, 64, 6))
    comparison = compare(bundled.engines, wrong(bundled.engines, graph, 0.2), frames, OPTIONS)
    found = verdicts(parity.parity_rows(comparison))
    assert found[graph] == MISSED
    assert all(found[other] == PASSED for other in GRAPHS if other != graph)
    if graph == "vae_decoder":
        assert found["depth of the clip"] == MISSED


def test_engines_that_are_right_miss_nothing(bundled):
    frames = list(clip_frames(DEMO, 64, 64, 6))
    comparison = compare(bundled.engines, bundled.engines, frames, OPTIONS)
    assert set(verdicts(parity.parity_rows(comparison)).values()) == {PASSED}
    extremes = parity.extremes_rows(bundled.engines, bundled.engines, 64, 64)
    assert {row.status for row in extremes} == {PASSED}


def test_what_is_not_a_number_is_missed(bundled):
    broken = wrong(bundled.engines, "vae_decoder", np.nan)
    comparison = compare(bundled.engines, broken, list(clip_frames(DEMO, 64, 64, 3)), OPTIONS)
    found = verdicts(parity.parity_rows(comparison))
    assert found["vae_decoder"] == found["depth of the clip"] == MISSED
    extremes = parity.extremes_rows(bundled.engines, broken, 64, 64)
    assert {row.status for row in extremes} == {MISSED}
    assert all("not finite" in row.value for row in extremes)


def latency_record(**milliseconds):
    """A record of bench/latency.py with these milliseconds a frame for the model in all of three rounds, or in each."""

    def row(ms):
        rounds = [ms] * 3 if isinstance(ms, float) else ms
        stages = {name: {"median": 1.0} for name in ("read", "write")} | {"all": {"median": sorted(rounds)[1] + 2}}
        return {"ms_per_frame": stages, latency.MODEL_SECONDS: [each / 8 for each in rounds]}

    titles = {"tensorrt": "TensorRT", EAGER: "PyTorch eager", "compile": "torch.compile"}
    rows = {
        name: {"title": titles[name]} | (row(ms) if ms else {"absent": "it ran out of memory", "failed": True})
        for name, ms in milliseconds.items()
    }
    return {"job": {"frames": 125, "width": 1024, "height": 576, "window": 110, "steps": 5}, "backends": rows}


@pytest.mark.parametrize(
    ("eager", "compiled", "expected"),
    [
        (20.0, 13.0, (PASSED, PASSED)),
        (19.9, 13.0, (MISSED, PASSED)),
        (20.0, 12.9, (PASSED, MISSED)),
        (20.0, None, (PASSED, SKIPPED)),
        (float("nan"), 13.0, (MISSED, PASSED)),
    ],
)
def test_speed_ups_are_held_against_their_targets(eager, compiled, expected):
    record = latency_record(tensorrt=10.0, eager=eager, compile=compiled)
    rows = {row.what: row for row in latency.latency_rows(record, "tensorrt", CHECKS["random-full"].speed_targets)}
    over = [rows[f"speed-up over {name}"] for name in ("PyTorch eager", "torch.compile")]
    assert tuple(row.status for row in over) == expected
    assert [row.target for row in over] == [">= 2", ">= 1.3"]


def test_a_speed_up_is_that_of_runs_of_the_same_round():
    """The machine slows down: a quotient of medians would be 2."""
    record = latency_record(tensorrt=[10.0, 20.0, 40.0], eager=[30.0, 60.0, 40.0])
    rows = {row.what: row for row in latency.latency_rows(record, "tensorrt", {})}
    assert rows["speed-up over PyTorch eager"].value == "3.00x"
    assert rows["time of TensorRT"].value == "20.0 ms/frame"


def test_a_backend_that_fails_is_not_one_that_is_not_installed():
    record = latency_record(tensorrt=10.0, eager=None, compile=None)
    record["backends"]["compile"]["failed"] = False
    rows = {row.what: row for row in latency.latency_rows(record, "tensorrt", {})}
    assert rows["time of PyTorch eager"].status == FAILED
    assert rows["time of torch.compile"].status == SKIPPED


def test_a_record_that_was_cut_off_is_left_out(tmp_path, capsys):
    (tmp_path / "gpu-check-X.json").write_text('{"gpu": "X", "steps": {')
    record = Record(tmp_path, "X", "X")
    assert "gpu-check-X.json cannot be read" in capsys.readouterr().out
    record.add("nano", "load", [], 1.0)
    assert json.loads((tmp_path / "gpu-check-X.json").read_text())["steps"].keys() == {"nano load"}
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".json", ".md"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_an_export_that_is_killed_is_told_with_its_signal(monkeypatch):
    monkeypatch.setattr(sys, "executable", str(Path("dying").absolute()))
    Path("dying").write_text("#!/bin/sh\necho tracing\nkill -9 $$\n")
    Path("dying").chmod(0o755)
    with pytest.raises(StepFailed, match="was ended by SIGKILL; the last it said was: tracing"):
        _dc_export("onnx")


def test_without_an_engine_there_is_no_speed_up():
    rows = latency.latency_rows(latency_record(eager=20.0), None, CHECKS["random-full"].speed_targets)
    assert [(row.what, row.status) for row in rows] == [
        ("time of PyTorch eager", MEASURED),
        ("speed-up over PyTorch eager", SKIPPED),
    ]


@pytest.mark.soak
def test_a_missed_target_is_exit_status_1_and_is_written(half, tmp_path):
    engines = shutil.copytree(half, tmp_path / "set")
    in_small(engines)
    # Half precision is not exact.
    options = ("--depth-target", "1e-12", "--parity-frames", "2", "--steps", "1")
    done = gpu_checks("--only", "parity", "--engines", engines, "--results", tmp_path, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = (line for line in (tmp_path / "gpu-check-dry-run.md").read_text().splitlines() if "| missed |" in line)
    assert "depth of the clip" in row


def test_a_process_that_dies_says_so():
    with pytest.raises(ChildFailed, match="status 7"):
        apart(os._exit, 7)


def test_a_file_is_named_after_the_gpu():
    assert gpu_check.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_uses_the_interpreter_that_it_is_given():
    command = ["make", "--dry-run", "--always-make", "-C", str(ROOT), "gpu-check", "GPU_CHECK_FLAGS=--only build"]
    given = subprocess.run([*command, "PYTHON_GPU=python9"], capture_output=True, text=True, check=True).stdout
    assert "python9 -m bench.gpu_check --only build" in given
    assert "pip" not in given
    own = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ".venv-dev/bin/python -m bench.gpu_check --only build" in own
