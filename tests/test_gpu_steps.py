"""The steps of `make gpu-check` that need no engines, tiny and on the CPU; and what they say of missing libraries."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch  # noqa: F401 - without it none of the steps has anything to measure

from bench.children import Child, ChildFailed, each_apart
from bench.gpu_check import block, ceilings, end_to_end, manifests, steps, timing, unet, vae
from bench.gpu_check.check import parse
from bench.gpu_check.models import DRY, DRY_CHECKS, FULL
from bench.gpu_check.record import line
from bench.gpu_check.rows import FAILED, MEASURED, SKIPPED, Row
from dc_rt.engine.discovery import BUNDLED
from dc_rt.errors import UserError
from dc_rt.sampler import SAMPLERS
from dc_rt.windows import plan_windows

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo.mp4"
TINY = dataclasses.replace(DRY, windows=(2,), chunks=(2,), video=3, seconds=0.0)


def by_name(rows):
    return {row.what: row for row in rows}


def test_the_whole_video_is_two_windows_that_share_frames():
    for sizes in (FULL, DRY):
        sampling = sizes.sampling
        windows = list(plan_windows(sizes.video, sampling.window_size, sampling.overlap))
        assert len(windows) == 2
        assert sampling.overlap > 0


@pytest.mark.soak
def test_ceilings_have_a_row_for_everything_and_say_what_there_is_no_kernel_for():
    rows = by_name(ceilings.measure(TINY))
    for what in (
        "copy",
        "matrix product, fp16",
        "temporal convolution, 3-D",
        "temporal convolution, 2-D, channels_last",
    ):
        assert rows[what].status == MEASURED, rows[what]
    for _, tokens in TINY.heads:
        assert rows[f"attention, {tokens} x 64, math"].status == MEASURED
        assert rows[f"attention, {tokens} x 64, xformers"].status == SKIPPED
    assert not [row for row in rows.values() if row.status == FAILED]


def test_the_ways_to_run_a_block_do_the_same_work():
    rows = by_name(block.measure(TINY))
    distances = {
        name: float(row.note.rpartition("; ")[2].removesuffix(" from eager"))
        for name, row in rows.items()
        if row.status == MEASURED and name != "block, eager"
    }
    assert {"block, eager, collapsed, channels_last", "block, compiled, collapsed"} < set(distances)
    assert all(distance < 1e-5 for name, distance in distances.items() if "fp8" not in name)
    assert all(1e-4 < distance < 0.2 for name, distance in distances.items() if "fp8" in name)


@pytest.mark.soak
def test_the_unet_and_the_vae_are_measured_at_every_size():
    rows = by_name([*unet.measure_eager(TINY), *vae.measure(TINY)])
    assert {row.status for row in rows.values()} == {MEASURED}
    assert {"UNet, T=2, eager", "VAE encoder, chunk 2, float32", "VAE decoder, chunk 2, half precision"} < set(rows)


def test_the_whole_video_has_a_row_for_every_sampler_of_the_runtime():
    rows = by_name(end_to_end.measure("onnx", DRY_CHECKS["nano"], BUNDLED, DEMO, TINY))
    for sampler in SAMPLERS:
        row = rows[f"ONNX Runtime, CPU, {sampler}"]
        assert row.status == MEASURED
        assert "denoiser" in row.note


def test_without_graphs_only_pytorch_runs(tmp_path):
    folder = tmp_path / "prepared"
    manifests.write(DRY_CHECKS["nano"], folder)
    assert not manifests.has_graphs(folder)
    assert manifests.has_graphs(BUNDLED)
    (row,) = end_to_end.measure("onnx", DRY_CHECKS["nano"], folder, DEMO, TINY)
    assert row.status == SKIPPED
    assert "--only build" in row.note
    rows = by_name(end_to_end.measure("eager", DRY_CHECKS["nano"], folder, DEMO, TINY))
    assert {row.status for what, row in rows.items() if "memory" not in what} == {MEASURED}


def test_a_way_that_fails_leaves_the_others_as_they_are():
    def broken():
        raise ValueError("of no use")

    def lacking():
        raise timing.LeftOut("there is no such unit")

    ways = {"good": lambda: lambda: time.sleep(0.001), "broken": broken, "lacking": lacking}
    rows = by_name(timing.rows_of(ways, 0.01, "work", str))
    assert rows["work, good"].status == MEASURED
    assert (rows["work, broken"].status, rows["work, broken"].note) == (FAILED, "ValueError: of no use")
    assert (rows["work, lacking"].status, rows["work, lacking"].note) == (SKIPPED, "there is no such unit")


def test_ways_take_turns():
    order = []
    ways = {name: lambda name=name: lambda: order.append(name) for name in "ab"}
    list(timing.in_turns(ways, 0.0))
    assert order == [*"aabb", *"ab" * timing.LEAST], "after two runs of no account"


def counted(count, seconds):
    for number in range(count):
        yield number
        time.sleep(seconds)


def fails_late():
    yield 1
    raise UserError("That is that.")


@pytest.fixture
def _known_to_children(monkeypatch):
    """Have processes that are begun find this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.usefixtures("_known_to_children")
def test_a_child_gives_what_a_generator_yields_as_it_comes():
    with Child() as child:
        assert list(child.each(counted, 3, 0)) == [0, 1, 2]
        assert child.call(len, "four") == 4, "it takes more calls"


@pytest.mark.usefixtures("_known_to_children")
def test_what_came_before_a_failure_or_the_end_of_the_time_is_kept():
    rows = each_apart(fails_late, seconds=60)
    assert next(rows) == 1
    with pytest.raises(ChildFailed, match=r"That is that\."):
        next(rows)
    rows = each_apart(counted, 9, 600, seconds=5)
    assert next(rows) == 0
    with pytest.raises(ChildFailed, match="it took over 5 s"):
        next(rows)


def test_steps_are_asked_for_alone_or_by_group():
    only = parse(["--only", "end-to-end,vae"]).only
    assert "vae" in only
    assert set(steps.OF_A_BACKEND) < set(only)
    assert parse([]).fresh
    assert set(parse([]).only) == set(steps.STEPS)
    with pytest.raises(SystemExit):
        parse(["--only", "ceiling"])


def test_a_row_is_a_line_of_markdown():
    shown = line("full", "block", dataclasses.asdict(Row("a|b", MEASURED, "1 ms", note="median")))
    assert shown == "| full | block | a\\|b | 1 ms |  | measured | median |"


# An interpreter that does not find some modules, as if they were not installed.
HIDING = """
import os, sys
from importlib.machinery import PathFinder

HIDDEN = os.environ["HIDDEN_MODULES"].split(",")

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.mark.parametrize(
    ("hidden", "only", "told"),
    [
        ("diffusers", "block,unet,vae,graphs", "diffusers is not installed"),
        ("onnxruntime", "end-to-end-onnx", "onnxruntime is not installed"),
    ],
)
def test_a_missing_library_is_a_row_that_says_what_is_left_out(tmp_path, hidden, only, told):
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    paths = os.pathsep.join(map(str, (tmp_path, ROOT / "runtime", ROOT / "export", ROOT)))
    environment = os.environ | {"PYTHONPATH": paths, "HIDDEN_MODULES": hidden}
    command = [sys.executable, "-m", "bench.gpu_check", "--dry-run", "--only", only, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [each for each in done.stdout.splitlines() if each.startswith("| ")]
    told_in = {row.split(" | ")[1] for row in rows if told in row}
    assert told_in == set(only.split(","))
