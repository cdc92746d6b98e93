"""Everything that has to be tried on a GPU: engines are built, loaded, compared with the reference, and timed.

    make gpu-check                                  # or, with an interpreter that has all it takes: PYTHON_GPU=python3
    python -m bench.gpu_check --only build,parity --model nano
    python -m bench.gpu_check --dry-run             # the same on the CPU, with a tiny model: no GPU is needed

For each model (nano, and random weights of the real size) there are four steps, each of which may fail without ending
the others:

build    exports the graphs and builds their engines: TensorRT's where it is installed, else TensorRT-RTX's. What is
         there already, and up to date, is kept.
load     opens the engines and runs a frame. Where TensorRT cannot be had on this GPU, its error is recorded, and
         ONNX Runtime's CUDA provider takes its place.
parity   every graph beside the float32 reference in PyTorch on the GPU, on the same inputs; then a whole clip, and
         frames at the extremes of what can be put in.
latency  bench/latency.py: the engines, PyTorch eager in float16 and torch.compile, taking turns.

Prints one table: what passed, what missed its target, what failed, and what was skipped and why. Writes it to
bench/results/gpu-check-GPU.json and .md, where the results of separate calls come together, a step's last ones each.
The exit status is 1 where a step of this call failed or missed its target. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.children import ChildFailed, apart, sentence
from bench.clips import DEMO, clip_frames
from bench.parity.compare import Differences, Error, compare
from bench.records import RESULTS
from bench.speed import latency
from bench.speed.backends import BACKENDS, EAGER, load_reference, quieten
from bench.speed.machine import describe, in_words, versions
from bench.speed.worker import Task
from dc_export.build import choose_flavour
from dc_export.profiles import load_profile
from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS, EngineSet, Manifest, load_engines
from dc_rt.engine.compatibility import Unavailable, find_gpu
from dc_rt.engine.manifest import LIBRARY_NAMES
from dc_rt.errors import UserError
from dc_rt.options import Sampling, default_overlap

ROOT = Path(__file__).parents[2]
BUILD_FOLDER = ROOT / "build" / "gpu-check"
STEPS = ("build", "load", "parity", "latency")
DRY_RUN = "dry-run"

DEPTH_TARGET = 3e-3  # mean error of a clip's depth, whose range is 1, in half precision
# Largest share of an output's size that its mean error may have where both have the same inputs: half precision has
# 11 bits, and hundreds of layers lie between input and output.
GRAPH_TARGET = 1e-2
# With inputs that no video has, rounding may show, but must not take over.
EXTREMES_TARGET = 2e-2
SPEED_TARGETS = {EAGER: 2.0, "compile": 1.3}

PASSED, MISSED, FAILED, SKIPPED, MEASURED = "passed", "missed", "failed", "skipped", "measured"
COLOURS = {PASSED: "green", MISSED: "red", FAILED: "red", SKIPPED: "yellow", MEASURED: ""}


@dataclass(frozen=True)
class Excerpt:
    """So many frames of the video, and how they are run."""

    frames: int
    window: int
    steps: int = Sampling.steps

    @property
    def sampling(self) -> Sampling:
        return Sampling(steps=self.steps, window_size=self.window, overlap=default_overlap(self.window))


@dataclass(frozen=True)
class Check:
    """One model, what it is compared and timed on, and the speed-ups that it must reach."""

    name: str
    source: str
    profile: str
    parity: Excerpt
    latency: Excerpt
    speed_targets: Mapping[str, float] = dataclasses.field(default_factory=dict)
    backends: tuple[str, ...] = (EAGER, "compile")


CHECKS = {
    check.name: check
    for check in (
        Check("nano", "nano", "512x256", Excerpt(60, 32), Excerpt(110, 110)),
        # The reference in float32 takes several times the memory of the engines: few frames at a time.
        Check("random-full", "random:full", "1024x576", Excerpt(16, 10), Excerpt(110, 110), SPEED_TARGETS),
    )
}
# Compiling for the CPU takes minutes and tells nothing of a GPU.
DRY_CHECKS = {
    name: Check(name, source, "512x256", Excerpt(4, 3, 2), Excerpt(2, 2, 1), backends=(EAGER,))
    for name, source in (("random-tiny", "random:tiny"), ("nano", "nano"))
}


@dataclass(frozen=True)
class Row:
    """A line of the table: what was looked at, what was found, what should have been, and the verdict."""

    what: str
    status: str
    value: str = ""
    target: str = ""
    note: str = ""


class StepFailed(Exception):
    """A step did not come to its end; says why in a sentence."""


def judged(what: str, value: float, target: float, shown: str, note: str = "", *, least: bool = False) -> Row:
    """The row of a number that must be at most, or at least, `target`; what is not a number never is."""
    reached = value >= target if least else value <= target
    sign = ">=" if least else "<="
    return Row(what, PASSED if reached and math.isfinite(value) else MISSED, shown, f"{sign} {target:g}", note)


# Building


def build_step(check: Check, folder: Path, given: bool, tell: Callable[[str], None]) -> list[Row]:
    """Export the graphs, unless they are given or up to date, and build an engine of each."""
    rows = []
    if given:
        rows.append(Row("graphs", SKIPPED, note=f"those of {folder.name} are given"))
    else:
        began = time.perf_counter()
        before = _created(folder)
        source = ("--base", check.source, "--unet", check.source, "--name", check.name)
        form = ("--target", "tensorrt", "--precision", "fp16", "--profile", check.profile)
        _dc_export(tell, "onnx", *source, *form, "--out", folder)
        kept = "kept, as nothing that they are made from has changed" if _created(folder) == before else ""
        rows.append(Row("graphs", PASSED, f"{time.perf_counter() - began:.0f} s", note=kept))
    try:
        flavour, targets = choose_flavour("auto")
    except UserError as error:
        return [*rows, Row("engines", SKIPPED, note=str(error))]
    _dc_export(tell, "build", folder, "--flavour", flavour)
    build = Manifest.read(folder).builds[flavour]
    for graph in GRAPHS:
        engine = build.engines[graph]
        memory = f"{engine.weights_bytes / 1e6:.0f} MB of weights, {engine.activation_bytes / 1e6:.0f} of activations"
        rows.append(Row(f"engine of {graph}", PASSED, f"{engine.seconds:.0f} s", note=memory))
    library = f"{LIBRARY_NAMES[flavour]} {build.version}, profile {build.profile.name}"
    return [*rows, Row("engines", PASSED, f"all {len(build.engines)}", note=f"{library}, for {', '.join(targets)}")]


def _created(folder: Path) -> str | None:
    """When the graphs in a folder were exported; None where there are none."""
    try:
        return Manifest.read(folder).created
    except UserError:
        return None


def _dc_export(tell: Callable[[str], None], *arguments: str | Path) -> None:
    """Run `dc-export`, passing on what it says; raises `StepFailed` with its last line where it fails."""
    command = [sys.executable, "-m", "dc_export.cli", *map(str, arguments)]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                tell(last)
    if process.returncode < 0:
        killer = signal.Signals(-process.returncode).name
        raise StepFailed(f"dc-export {arguments[0]} was ended by {killer}; the last it said was: {last}")
    if process.returncode:
        raise StepFailed(last or f"dc-export {arguments[0]} ended with status {process.returncode}")


# Loading


@dataclass(frozen=True)
class Loaded:
    """The rows of the step, and the backend that the next ones run on; None where there is none."""

    rows: list[Row]
    backend: str | None


def load_step(folder: Path, dry_run: bool) -> Loaded:
    """Open the engines and run a frame: with TensorRT, else with ONNX Runtime on the GPU (in a dry run, on the CPU)."""
    try:
        answer = apart(try_tensorrt, folder)
    except ChildFailed as error:
        answer = Row("TensorRT", FAILED, note=str(error))
    if answer.status == PASSED:
        return Loaded([answer], "tensorrt")
    try:
        other = apart(try_onnx, folder, dry_run)
    except ChildFailed as error:
        other = Row("ONNX Runtime", FAILED, note=str(error))
    if other.status != PASSED and not dry_run:
        other = dataclasses.replace(other, status=FAILED)  # then there is nothing to check
    return Loaded([answer, other], "onnx" if other.status == PASSED else None)


def try_tensorrt(folder: Path) -> Row:
    """Run a frame with TensorRT, on a GPU too that its engines are not said to be for.

    If that one runs them all the same, the set's manifest will say so from now on.
    """
    manifest = Manifest.read(folder)
    try:
        return _run_a_frame("TensorRT", load_engines(folder, "tensorrt"))
    except Unavailable as error:
        reason = error.reason
    try:
        gpu = find_gpu()
    except Unavailable as error:
        return Row("TensorRT", SKIPPED, note=error.reason)
    if not manifest.builds:
        return Row("TensorRT", SKIPPED, note=reason)

    from dc_rt.engine import tensorrt

    attempts = []
    for flavour, build in manifest.builds.items():
        built = manifest.built(flavour)
        built.check_contents(folder)
        try:
            open_engine, device = tensorrt.open_engines(folder, built, "none")
            row = _run_a_frame("TensorRT", EngineSet(built, "tensorrt", device, open_engine, one_resident=False))
        except Exception as error:  # whatever it is, it is what there is to record
            attempts.append(f"{LIBRARY_NAMES[flavour]} {build.version}: {sentence(error)}")
            continue
        capability = "{}.{}".format(*gpu.capability)
        known = dataclasses.replace(build, compute_capabilities=(*build.compute_capabilities, capability))
        dataclasses.replace(manifest, builds={**manifest.builds, flavour: known}).write(folder)
        return dataclasses.replace(row, note=f"it runs on compute capability {capability}, although {reason}")
    return Row("TensorRT", SKIPPED, note=f"{reason}; tried all the same: {'; '.join(attempts)}")


def try_onnx(folder: Path, dry_run: bool) -> Row:
    """Run a frame with ONNX Runtime: not on the CPU, unless it is to stand for the GPU."""
    engines = load_engines(folder, "onnx")
    if engines.device == "the CPU" and not dry_run:
        return Row("ONNX Runtime", SKIPPED, note="CUDA does not work in it (make install-gpu GPU_VENV=.venv-dev)")
    return _run_a_frame("ONNX Runtime", engines)


def _run_a_frame(what: str, engines: EngineSet) -> Row:
    profile = engines.manifest.profile
    frame = np.zeros((1, profile.height.opt, profile.width.opt, 3), np.uint8)
    began = time.perf_counter()
    (depth,) = DepthCrafter(engines)(frame, Sampling(steps=1, window_size=1, overlap=0))
    seconds = time.perf_counter() - began
    engines.close()
    if not np.isfinite(depth).all():
        return Row(what, FAILED, note=f"{engines.device}: the depth of a black frame is not finite")
    return Row(what, PASSED, f"{seconds:.1f} s", note=f"the first frame, on {engines.device}")


# Comparing


def parity_step(check: Check, folder: Path, backend: str, video: Path, depth_target: float, dry_run: bool) -> list[Row]:
    """The engines beside the float32 reference, graph by graph and as a whole."""
    # Not above: it takes onnx, which no other step needs.
    from bench.parity.rounding import FLOAT16_MAX, load_rounded

    # On the CPU, ONNX Runtime rounds less than what it stands for.
    rounded = load_rounded(folder) if dry_run else None
    engines = rounded.engines if rounded else BACKENDS[backend].load(folder)
    reference = load_reference(folder)
    profile = engines.manifest.profile
    height, width = profile.height.opt, profile.width.opt
    clip = check.parity
    frames = list(clip_frames(video, height, width, clip.frames))
    where = f"{BACKENDS[backend].title} on {engines.device} against PyTorch in float32 on {reference.device}"
    rows = [
        Row(
            "clip",
            MEASURED,
            f"{clip.frames} frames of {width}x{height}, window {clip.window}, steps {clip.steps}",
            note=where,
        )
    ]
    rows += parity_rows(compare(reference, engines, frames, clip.sampling), depth_target)
    rows += extremes_rows(reference, engines, height, width)
    if rounded:
        for graph, largest in rounded.largest.items():
            note = "" if largest else "it has none"
            rows.append(judged(f"{graph}: largest value in float16", largest, FLOAT16_MAX, f"{largest:.4g}", note))
    return rows


def parity_rows(comparison: Differences, depth_target: float = DEPTH_TARGET) -> list[Row]:
    """A row a graph, with the same inputs for both, and one for the whole clip."""
    rows = []
    for graph in GRAPHS:
        error = Error.over([error for place, error in comparison.local.items() if place.graph == graph])
        # Not the quotient of means alone: NaN must stay NaN.
        share = error.mean / (error.scale or 1.0)
        shown = f"{share:.1e}, {error.max / (error.scale or 1.0):.1e}"
        rows.append(judged(f"{graph}: mean and max error for its size", share, GRAPH_TARGET, shown))
    difference = np.abs(comparison.depth - comparison.other)
    shown = f"{difference.mean():.1e}, {difference.max():.1e}"
    return [*rows, judged("depth of the clip: mean and max error", float(difference.mean()), depth_target, shown)]


def extremes_rows(reference: EngineSet, engines: EngineSet, height: int, width: int) -> list[Row]:
    """The depth of frames at the extremes of what can be put in: finite, and near the reference's."""
    rows = []
    for name, frames in extremes(height, width).items():
        expected, depth = (
            np.stack(list(DepthCrafter(one)(frames, Sampling(steps=1, window_size=2, overlap=0, seed=2))))
            for one in (reference, engines)
        )
        mean = float(np.abs(depth - expected).mean())
        shown = f"{mean:.1e}" if np.isfinite(depth).all() else f"{np.count_nonzero(~np.isfinite(depth))} not finite"
        rows.append(judged(f"depth of {name}: mean error", mean, EXTREMES_TARGET, shown))
    return rows


def extremes(height: int, width: int, num_frames: int = 2) -> dict[str, NDArray[np.uint8]]:
    """Frames, uint8 [T,H,W,3], at the ends of what there is: flat, or with all the contrast that frames can have."""
    rng = np.random.default_rng(0)
    shape = (num_frames, height, width, 3)
    halves = np.zeros(shape, np.uint8)
    halves[:, :, width // 2 :] = 255
    stripes = np.zeros(shape, np.uint8)
    stripes[:, :, ::2] = 255
    flicker = np.zeros(shape, np.uint8)
    flicker[1::2] = 255
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "noise of black and white": 255 * rng.integers(0, 2, shape, dtype=np.uint8),
        "a hard edge": halves,
        "stripes of a pixel": stripes,
        "black, then white": flicker,
    }


# Timing


def latency_step(
    check: Check, folder: Path, backend: str | None, video: Path, runs: int, fresh: bool, results: Path, label: str
) -> list[Row]:
    """bench/latency.py on the backends, and their speed-ups against their targets."""
    manifest = Manifest.read(folder)
    profile, clip = manifest.profile, check.latency
    task = Task(folder.resolve(), video, profile.height.opt, profile.width.opt, clip.frames, clip.sampling)
    wanted = [*([backend] if backend else []), *check.backends]
    names, absent = latency.choose_backends(wanted, task.engines)
    found, order = latency.measure(names, task, runs, fresh)
    record = {"runs": runs, "order": order, "fresh_processes": fresh} | latency.record_of(task, found, absent, {})
    rows = latency_rows(record, backend, check.speed_targets)
    latency.write(record, results, f"latency-{check.name}-{label}")
    return rows


def latency_rows(record: Mapping[str, Any], backend: str | None, targets: Mapping[str, float]) -> list[Row]:
    """A row a backend with its time, and one for every other with how much faster `backend` is.

    Speed-ups leave out reading and writing, which `dc-rt infer` does beside the model: medians over runs, each against
    the other's run of the same round.
    """
    job, backends = record["job"], record["backends"]
    size = f"{job['frames']} frames of {job['width']}x{job['height']}, window {job['window']}, steps {job['steps']}"
    rows = []
    for row in backends.values():
        if "absent" in row:
            status = FAILED if row.get("failed") else SKIPPED
            rows.append(Row(f"time of {row['title']}", status, note=row["absent"]))
        else:
            rows.append(Row(f"time of {row['title']}", MEASURED, _per_frame(row, job["frames"]), note=size))
    ours = backends.get(backend)
    for name, row in backends.items():
        if name == backend:
            continue
        what = f"speed-up over {row['title']}"
        target = targets.get(name)
        missing = [each["title"] for each in (ours, row) if each and "absent" in each]
        if ours is None or missing:
            reason = f"{' and '.join(missing)} did not run" if ours else "neither TensorRT nor ONNX Runtime runs here"
            rows.append(Row(what, SKIPPED, target=f">= {target:g}" if target else "", note=reason))
            continue
        times = zip(row[MODEL_SECONDS], ours[MODEL_SECONDS], strict=True)
        ratio = statistics.median(other / own for other, own in times)
        note = f"of {ours['title']}; with reading and writing {_all_ms(row) / _all_ms(ours):.2f}x"
        if target:
            rows.append(judged(what, ratio, target, f"{ratio:.2f}x", note, least=True))
        else:
            rows.append(Row(what, MEASURED, f"{ratio:.2f}x", note=note))
    return rows


MODEL_SECONDS = "runs_seconds_of_the_model"


def _per_frame(row: Mapping[str, Any], frames: int) -> str:
    return f"{1000 * statistics.median(row[MODEL_SECONDS]) / frames:.1f} ms/frame"


def _all_ms(row: Mapping[str, Any]) -> float:
    return float(row["ms_per_frame"]["all"]["median"])


# One step after the other


class Record:
    """The results so far of one GPU, in a file that is written after every step."""

    def __init__(self, results: Path, label: str, gpu: str) -> None:
        self.path = results / f"gpu-check-{label}.json"
        self.contents: dict[str, Any] = {"gpu": gpu, "steps": {}}
        if self.path.exists():
            try:
                self.contents = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                print(f"{self.path} cannot be read; its results are left out.")

    def add(self, model: str, step: str, rows: Sequence[Row], seconds: float, **more: Any) -> None:
        """Put the results of a step in the place of its former ones, and write the files."""
        entry = {
            "model": model,
            "step": step,
            "seconds": round(seconds, 1),
            "machine": describe(),
            "versions": versions(),
            "rows": [asdict(row) for row in rows],
            **more,
        }
        self.contents["steps"][f"{model} {step}"] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        texts = {".json": json.dumps(self.contents, indent=2) + "\n", ".md": in_markdown(self.contents)}
        for suffix, text in texts.items():  # whole or as before, whenever this may be ended
            beside = self.path.with_suffix(f"{suffix}.part")
            beside.write_text(text, encoding="utf-8")
            beside.replace(self.path.with_suffix(suffix))

    def backend(self, model: str) -> str | None:
        """What the step `load` found for a model; None where it found nothing, or has not been done."""
        found: str | None = self.contents["steps"].get(f"{model} load", {}).get("backend")
        return found


def in_markdown(contents: Mapping[str, Any]) -> str:
    """The record as a table."""
    entries = _in_order(contents)
    lines = [
        f"# {contents['gpu']}",
        "",
        "| model | step | what | found | target | verdict | |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        for row in entry["rows"]:
            cells = (
                entry["model"],
                entry["step"],
                *(row[name] for name in ("what", "value", "target", "status", "note")),
            )
            lines.append(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |")
    for words in dict.fromkeys(in_words(entry["machine"]) for entry in entries):
        lines += ["", f"{words}."]
    for found in dict.fromkeys(", ".join(map(" ".join, entry["versions"].items())) for entry in entries):
        lines += ["", f"{found}."]
    return "\n".join(lines) + "\n"


def report(contents: Mapping[str, Any], console: Console) -> None:
    """The record on the terminal."""
    table = Table("model", "step", "what", "found", "target", "verdict", "", title=contents["gpu"])
    for entry in _in_order(contents):
        for number, row in enumerate(entry["rows"]):
            colour = COLOURS[row["status"]]
            verdict = f"[{colour}]{row['status']}[/]" if colour else row["status"]
            cells = (entry["model"], entry["step"]) if number == 0 else ("", "")
            texts = [escape(row[name]) for name in ("what", "value", "target", "note")]
            last = number == len(entry["rows"]) - 1
            table.add_row(*cells, *texts[:3], verdict, texts[3], end_section=last)
    console.print(table)


def _in_order(contents: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Steps by model, in the order that they are done in."""
    models = list(dict.fromkeys(entry["model"] for entry in contents["steps"].values()))
    return sorted(
        contents["steps"].values(), key=lambda entry: (models.index(entry["model"]), STEPS.index(entry["step"]))
    )


def check_model(check: Check, record: Record, arguments: argparse.Namespace, console: Console) -> bool:
    """All wanted steps of a model; whether none failed or missed its target."""
    folder = arguments.engines or BUILD_FOLDER / f"{check.name}-{check.profile}"
    label = record.path.stem.removeprefix("gpu-check-")
    good = True

    def done(step: str, work: Callable[[], tuple[list[Row], dict[str, Any]]]) -> None:
        nonlocal good
        console.rule(f"{check.name}: {step}")
        began = time.perf_counter()
        more: dict[str, Any] = {}
        try:
            rows, more = work()
        except StepFailed as error:
            rows = [Row(step, FAILED, note=str(error))]
        except Exception as error:  # a step that fails does not end the others
            rows = [Row(step, FAILED, note=sentence(error))]
        # Paths are this machine's own.
        rows = [dataclasses.replace(row, note=row.note.replace(f"{ROOT}{os.sep}", "")) for row in rows]
        record.add(check.name, step, rows, time.perf_counter() - began, **more)
        good &= not any(row.status in (MISSED, FAILED) for row in rows)

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def load() -> tuple[list[Row], dict[str, Any]]:
        loaded = load_step(folder, arguments.dry_run)
        return loaded.rows, {"backend": loaded.backend}

    def parity() -> tuple[list[Row], dict[str, Any]]:
        backend = record.backend(check.name)
        if not backend:
            return [Row("parity", SKIPPED, note="neither TensorRT nor ONNX Runtime runs here")], {}
        options = (arguments.video, arguments.depth_target, arguments.dry_run)
        return apart(parity_step, check, folder, backend, *options), {}

    def latencies() -> tuple[list[Row], dict[str, Any]]:
        backend, results = record.backend(check.name), record.path.parent
        rows = latency_step(check, folder, backend, arguments.video, arguments.runs, arguments.fresh, results, label)
        return rows, {}

    only = arguments.only
    if "build" in only:
        done("build", lambda: (build_step(check, folder, arguments.engines is not None, tell), {}))
    # What the others run on depends on it.
    if "load" in only or ({"parity", "latency"} & set(only) and ("build" in only or not record.backend(check.name))):
        done("load", load)
    if "parity" in only:
        done("parity", parity)
    if "latency" in only:
        done("latency", latencies)
    return good


def gpu_name() -> str | None:
    """Of the GPU that PyTorch, and so the reference, would use; None where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def slug(name: str) -> str:
    """A name of a GPU as part of a file's: "nvidia-h100-80gb-hbm3", for example."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def with_options(check: Check, arguments: argparse.Namespace) -> Check:
    """The check at the sizes that the options ask for; targets hold at the full size, and stay."""

    def excerpt(old: Excerpt, frames: int | None, window: int | None) -> Excerpt:
        frames = frames or old.frames
        return Excerpt(
            frames, min(window or old.window, load_profile(check.profile).frames.max), arguments.steps or old.steps
        )

    return dataclasses.replace(
        check,
        parity=excerpt(check.parity, arguments.parity_frames, arguments.parity_window),
        latency=excerpt(check.latency, arguments.frames, arguments.window),
        backends=tuple(arguments.backends) if arguments.backends else check.backends,
    )


def _comma_separated(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; choose of {', '.join(known)}")
        return names

    return parse


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line unless given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = tuple(dict.fromkeys((*CHECKS, *DRY_CHECKS)))
    parser.add_argument("--dry-run", action="store_true", help="the same on the CPU, small: needs no GPU")
    parser.add_argument("--only", type=_comma_separated(STEPS), default=list(STEPS), help=f"of {','.join(STEPS)}")
    parser.add_argument("--model", type=_comma_separated(models), help=f"of {','.join(models)}")
    parser.add_argument("--engines", type=Path, help="a set whose graphs are there, in the place of a model's")
    parser.add_argument("--video", type=Path, default=DEMO, help="taken over and over where it is too short")
    parser.add_argument("--parity-frames", type=int)
    parser.add_argument("--parity-window", type=int)
    parser.add_argument("--frames", type=int, help="of the latency; the window too, where it is smaller")
    parser.add_argument("--window", type=int, help="of the latency")
    parser.add_argument("--steps", type=int, help="of parity and latency")
    parser.add_argument("--runs", type=int, help="of the latency: 3 unless given, and 1 in a dry run")
    parser.add_argument("--fresh", action="store_true", help="of the latency: one model on the GPU at a time")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="that the engines' latency is compared with")
    parser.add_argument("--depth-target", type=float, default=DEPTH_TARGET, help="mean error of the depth")
    parser.add_argument("--results", type=Path, help="folder; bench/results, in a dry run build/gpu-check")
    arguments = parser.parse_args(words)
    checks = DRY_CHECKS if arguments.dry_run else CHECKS
    arguments.model = arguments.model or ([next(iter(checks))] if arguments.dry_run else list(checks))
    if unknown := set(arguments.model) - set(checks):
        parser.error(f"{', '.join(sorted(unknown))} is for {'a GPU' if arguments.dry_run else 'a dry run'}")
    if arguments.engines and len(arguments.model) > 1:
        parser.error("--engines is one model: name it with --model")
    arguments.results = arguments.results or (BUILD_FOLDER if arguments.dry_run else RESULTS)
    arguments.runs = arguments.runs or (1 if arguments.dry_run else 3)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Do the steps, print and write the table; the exit status."""
    arguments = parse(words)
    quieten()
    if arguments.dry_run:
        # The very same on a machine that has a GPU.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        gpu: str | None = "Dry run on the CPU: nothing here tells of a GPU"
    else:
        gpu = gpu_name()
    if gpu is None:
        print("PyTorch finds no GPU here; check `nvidia-smi`, or try --dry-run, which needs none.", file=sys.stderr)
        return 1
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a log, which is to be read later
    record = Record(arguments.results, DRY_RUN if arguments.dry_run else slug(gpu), gpu)
    checks = DRY_CHECKS if arguments.dry_run else CHECKS
    outcomes = [
        check_model(with_options(checks[name], arguments), record, arguments, console) for name in arguments.model
    ]
    report(record.contents, console)
    console.print(f"{record.path} and .md have this.", soft_wrap=True)
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
