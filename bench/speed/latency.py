"""Time of every stage on every backend that the machine has: same weights, same frames, same noise.

    python bench/latency.py

Each backend has a process of its own. After a warm-up they take turns, A B A B, so that a noisy machine hurts all
alike. Prints medians with the smallest and the largest, the speed-up over PyTorch eager, largest memory, cold start and
installed size, and beside them the roofline: the least time that the graphs' arithmetic and traffic take on this
machine. Writes bench/results/NAME.json and a bar chart, NAME.png. `python -m bench.speed.readme_table` makes the
README's table from them.

The PyTorch rows run the reference's networks on the checkpoint that the engine set was exported from, through the same
loop over windows. Reading and writing are those of `dc-rt infer`, which does them beside the model; here they come one
after another, so that the stages add up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.children import ChildFailed, apart
from bench.clips import DEFAULT_SIZE, DEFAULT_WINDOW, DEMO, nearest_size, parse_size
from bench.records import RESULTS, pyplot, write_record
from bench.speed.backends import BACKENDS, EAGER, quieten
from bench.speed.installed import installed_bytes
from bench.speed.machine import copy_bytes, describe, in_words, matmul_flops, versions
from bench.speed.worker import STAGES, BackendProcess, Run, Task
from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS, Manifest
from dc_rt.engine.discovery import Wanted, choose, find_candidates, runs_as
from dc_rt.errors import UserError
from dc_rt.options import Sampling, default_overlap

STAGE_TITLES = dict(zip(STAGES, ("read", "CLIP", "VAE encode", "denoise", "VAE decode", "host", "write"), strict=True))


def measure(names: Sequence[str], task: Task, runs: int, fresh: bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Interleaved runs of backends: for each what was measured of it, or why it failed; and the order they ran in."""
    found: dict[str, dict[str, Any]] = {name: {"runs": []} for name in names}
    order: list[str] = []
    kept: dict[str, BackendProcess] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(name: str) -> BackendProcess:
            """A process that is warm: its first run is of no account, but for its depth."""
            process = BackendProcess(name, task)
            began = time.perf_counter()
            process.run(folder / name)
            seconds = {"load_seconds": process.opened.seconds, "first_run_seconds": time.perf_counter() - began}
            found[name] |= {"device": process.opened.device} | seconds
            return process

        if not fresh:
            for name in names:
                with _noting_failure(found[name]):
                    kept[name] = stack.enter_context(start(name))
        for _ in range(runs):
            for name in names:
                if "failed" in found[name]:
                    continue
                with _noting_failure(found[name]), start(name) if fresh else nullcontext(kept[name]) as process:
                    found[name]["runs"].append(process.run())
                    memory = process.memory()
                    found[name] |= {"peak_memory_mb": memory.host, "peak_gpu_memory_mb": memory.gpu}
                    order.append(name)
        _compare_depths(found, folder)
    return found, order


@contextmanager
def _noting_failure(row: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except ChildFailed as error:
        row["failed"] = str(error)


def _compare_depths(found: dict[str, dict[str, Any]], folder: Path) -> None:
    """How far each backend's depth is from PyTorch eager's: speed counts for nothing if the work is not the same."""
    if not (folder / EAGER).exists():
        return
    expected = np.fromfile(folder / EAGER, np.float32)
    for name in found:
        if (folder / name).exists():
            depth = np.fromfile(folder / name, np.float32)
            if depth.shape == expected.shape:
                difference = np.abs(depth - expected)
                found[name]["difference"] = {"mean": float(difference.mean()), "max": float(difference.max())}


def cold_starts(names: Sequence[str], task: Task, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds from the start of a process to a loaded model and to its first depth, interleaved.

    What they read is in the system's file cache.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            began = time.monotonic()
            try:
                loaded, first_depth = apart(cold_start, task, BACKENDS[name].runtime_name or "auto")
            except ChildFailed as error:
                print(f"A cold start of {BACKENDS[name].title} failed: {error}", flush=True)
                continue
            seconds[name].append((loaded - began, first_depth - began))
    return seconds


def cold_start(task: Task, backend: str) -> tuple[float, float]:
    """In a process of its own: when the model is loaded, and when the depth of a video of one frame is there."""
    model = DepthCrafter.load(task.engines, backend)
    loaded = time.monotonic()
    frame = np.zeros((1, task.height, task.width, 3), np.uint8)
    next(model(frame, replace(task.sampling, window_size=1, overlap=0)))
    return loaded, time.monotonic()


def roofline(task: Task, calls: Mapping[str, Mapping[int, int]], flops: float, traffic: float) -> dict[str, Any]:
    """Work of the graphs for the clip, a frame, and the least time that it takes, node after node.

    Args:
        calls: how often each graph runs on how many frames.
        flops: operations a second that the machine reaches.
        traffic: bytes a second that it copies.
    """
    # Not above: it takes onnx, which the environment of the runtime alone does not have.
    from bench.speed.flops import count

    manifest = Manifest.read(task.engines)
    totals = {graph: {"gflop": 0.0, "mb": 0.0, "ms": 0.0} for graph in GRAPHS}
    height, width = task.height, task.width
    for graph, frames, times in ((name, *call) for name in calls for call in calls[name].items()):
        sizes = {"n": frames, "T": frames, "H": height, "W": width, "h": height // 8, "w": width // 8}
        costs = count(task.engines / manifest.file(graph), sizes)
        share = times / task.frames
        totals[graph]["gflop"] += share * sum(cost.flops for cost in costs) / 1e9
        totals[graph]["mb"] += share * sum(cost.bytes for cost in costs) / 1e6
        totals[graph]["ms"] += share * sum(cost.seconds(flops, traffic) for cost in costs) * 1e3
    return {"matmul_gflops": flops / 1e9, "copy_gb_per_second": traffic / 1e9, "per_frame": totals}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(runs: Sequence[Run], baseline: Sequence[Run], frames: int) -> dict[str, Any]:
    """Milliseconds a frame of every stage and of all, and the speed-up over the baseline's run of the same round."""
    stages = {stage: spread([1000 * run.seconds[stage] / frames for run in runs]) for stage in STAGES}
    result: dict[str, Any] = {
        "ms_per_frame": stages | {"all": spread([1000 * run.total / frames for run in runs])},
        "runs_seconds": [run.total for run in runs],
        "runs_seconds_of_the_model": [run.model for run in runs],
    }
    if baseline:
        ratios = [theirs.total / ours.total for ours, theirs in zip(runs, baseline, strict=False)]
        result["speed_up"] = spread(ratios)
        ratios = [theirs.model / ours.model for ours, theirs in zip(runs, baseline, strict=False)]
        result["speed_up_of_the_model"] = spread(ratios)
    return result


def record_of(
    task: Task,
    found: Mapping[str, Mapping[str, Any]],
    absent: Mapping[str, str],
    starts: Mapping[str, Sequence[tuple[float, float]]],
) -> dict[str, Any]:
    """What is written: the task, the machine, and of every backend what was measured or why nothing was.

    Args:
        found: what `measure` found.
        absent: why the other backends were not measured.
        starts: what `cold_starts` found.
    """
    manifest = Manifest.read(task.engines)
    rows: dict[str, dict[str, Any]] = {}
    baseline = found[EAGER]["runs"] if EAGER in found and "failed" not in found[EAGER] else []
    for name in (name for name in BACKENDS if name in found or name in absent):
        row: dict[str, Any] = {"title": BACKENDS[name].title}
        rows[name] = row
        if reason := absent.get(name) or found[name].get("failed"):
            row |= {"absent": reason, "failed": name not in absent}
            continue
        row |= {key: value for key, value in found[name].items() if key != "runs"}
        row |= summary(found[name]["runs"], baseline, task.frames)
        size = installed_bytes(BACKENDS[name].extras)
        row["installed_mb"] = size / 1e6 if size is not None else None
        if starts.get(name):
            loaded, first_depth = zip(*starts[name], strict=True)
            row |= {"cold_load_seconds": spread(loaded), "cold_start_seconds": spread(first_depth)}
    return {
        "model": manifest.model.name,
        "precision": manifest.precision,
        "job": in_record(task),
        "machine": describe(),
        "versions": versions(),
        "backends": rows,
    }


def in_record(task: Task) -> dict[str, Any]:
    """A task as records have it. Paths are a machine's own, and only their names are kept."""
    sampling = task.sampling
    return {
        "engines": task.engines.name,
        "video": task.video.name,
        "height": task.height,
        "width": task.width,
        "frames": task.frames,
        "window": sampling.window_size,
        "overlap": sampling.overlap,
        "steps": sampling.steps,
        "seed": sampling.seed,
    }


def report(record: Mapping[str, Any], console: Console) -> None:
    """The record as tables."""
    job = record["job"]
    size = f"{job['width']}x{job['height']}"
    title = (
        f"{record['model']} ({record['precision']}), {job['frames']} frames of {size}, window {job['window']}, "
        f"{job['steps']} steps, {record['runs']} interleaved runs: median ms a frame, smallest and largest in brackets"
    )
    present = {name: row for name, row in record["backends"].items() if "ms_per_frame" in row}
    table = Table("", *(row["title"] for row in present.values()), title=title)
    for stage in (*STAGES, "all"):
        cells = (_in_brackets(row["ms_per_frame"][stage], ".1f") for row in present.values())
        table.add_row(STAGE_TITLES.get(stage, "in all"), *cells, end_section=stage == STAGES[-1])
    rows = {
        "speed-up over PyTorch eager": lambda row: _in_brackets(row.get("speed_up"), ".2f"),
        "without reading and writing": lambda row: _in_brackets(row.get("speed_up_of_the_model"), ".2f"),
        "depth, mean and max difference": lambda row: _pair(row.get("difference")),
        "peak memory, MB": lambda row: f"{row['peak_memory_mb']:.0f}",
        "peak GPU memory, MB": lambda row: _number(row["peak_gpu_memory_mb"]),
        "first run, s": lambda row: f"{row['first_run_seconds']:.1f}",
        "cold start, s": lambda row: _in_brackets(row.get("cold_start_seconds"), ".2f"),
        "installed, MB": lambda row: _number(row["installed_mb"]),
    }
    for label, cell in rows.items():
        table.add_row(label, *(cell(row) for row in present.values()))
    console.print(table)
    for row in record["backends"].values():
        if "absent" in row:
            verdict = "failed" if row.get("failed") else "absent"
            console.print(f"{row['title']}: {verdict}, as {row['absent']}", soft_wrap=True, markup=False)

    if bounds := record.get("roofline"):
        machine = (
            f"plain matrix product {bounds['matmul_gflops']:.0f} GFLOP/s, "
            f"plain copy {bounds['copy_gb_per_second']:.1f} GB/s"
        )
        table = Table("", "GFLOP", "MB", "ms at least", *(row["title"] for row in present.values()))
        table.title = f"Roofline a frame: {machine}; the share of it that each backend reaches"
        for graph, least in bounds["per_frame"].items():
            shares = (least["ms"] / row["ms_per_frame"][graph]["median"] for row in present.values())
            numbers = (f"{least['gflop']:.2f}", f"{least['mb']:.1f}", f"{least['ms']:.2f}")
            table.add_row(STAGE_TITLES[graph], *numbers, *(f"{share:.0%}" for share in shares))
        console.print(table)
    console.print(in_words(record["machine"]), soft_wrap=True)


def _in_brackets(values: Mapping[str, float] | None, form: str) -> str:
    if values is None:
        return ""
    return f"{values['median']:{form}} [dim]\\[{values['min']:{form}}, {values['max']:{form}}][/dim]"


def _pair(values: Mapping[str, float] | None) -> str:
    return f"{values['mean']:.0e}, {values['max']:.0e}" if values else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def draw(record: Mapping[str, Any], path: Path) -> None:
    """A bar a backend, stages on top of each other."""
    present = [row for row in record["backends"].values() if "ms_per_frame" in row]
    names = [row["title"] for row in present]
    figure, axes = pyplot().subplots(figsize=(8, 1.5 + 0.6 * len(present)), layout="constrained")
    left = np.zeros(len(present))
    for stage in STAGES:
        widths = np.array([row["ms_per_frame"][stage]["median"] for row in present])
        axes.barh(names, widths, left=left, label=STAGE_TITLES[stage])
        left += widths
    for y, (row, total) in enumerate(zip(present, left, strict=True)):
        ratio = f"  {row['speed_up']['median']:.2f}x" if "speed_up" in row else ""
        axes.text(total, y, f" {total:.0f}{ratio}", va="center", fontsize=9)
    axes.set(xlabel="ms a frame, medians of stages", xlim=(0, 1.15 * left.max()))
    axes.invert_yaxis()
    job = record["job"]
    what = f"{record['model']} ({record['precision']}), {job['width']}x{job['height']}, window {job['window']}"
    axes.set_title(f"{what}, {job['steps']} steps\n{in_words(record['machine'])}", fontsize=9)
    figure.legend(fontsize=8, ncols=len(STAGES), loc="outside lower center")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """What to run: the options that the benchmarks share."""
    parser.add_argument("--engines", type=Path, help="engine set; else the one that dc-rt infer would take")
    parser.add_argument("--video", type=Path, default=DEMO, help="taken over and over where it is too short")
    parser.add_argument(
        "--size", type=parse_size, metavar="WIDTHxHEIGHT", help="320x192, or the nearest that the engine set runs"
    )
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--window", type=int, help="16, or the longest that the engine set runs if that is shorter")
    parser.add_argument("--overlap", type=int, help="25 of 110 frames of the window unless given")
    parser.add_argument("--steps", type=int, default=Sampling.steps)
    parser.add_argument("--seed", type=int, default=Sampling.seed)


def task_from(arguments: argparse.Namespace) -> Task:
    """The task that the options of `add_task_options` describe.

    A size that is asked for chooses the set, as a video does for `dc-rt infer`; else the set that infer prefers decides
    which size is measured.

    Raises:
        UserError: it cannot be run; with the options of here that would make it fit.
    """
    candidates = find_candidates(arguments.engines)
    engines, manifest = next(iter(candidates.sets.items()))
    profile = runs_as(engines, manifest, "auto").profile
    height, width = arguments.size or nearest_size(profile, DEFAULT_SIZE)
    window = arguments.window or min(DEFAULT_WINDOW, profile.frames.max)
    sampling = Sampling(
        steps=arguments.steps,
        window_size=window,
        overlap=default_overlap(window) if arguments.overlap is None else arguments.overlap,
        seed=arguments.seed,
    )
    try:
        engines = choose(candidates, Wanted(height, width, window)).folder
    except UserError:
        nearest = nearest_size(profile, (height, width))
        raise UserError(
            f"{profile.misfit(height, width, window)}; try --size {nearest[1]}x{nearest[0]} "
            f"--window {min(window, profile.frames.max)}, or --engines with another set."
        ) from None
    return Task(engines.resolve(), arguments.video, height, width, arguments.frames, sampling)


def choose_backends(wanted: Sequence[str] | None, engines: Path) -> tuple[list[str], dict[str, str]]:
    """The backends to run, of those wanted or of all, and why the others cannot."""
    absent = {}
    for name in wanted or BACKENDS:
        if reason := BACKENDS[name].missing(engines):
            absent[name] = reason
    return [name for name in wanted or BACKENDS if name not in absent], absent


def write(record: Mapping[str, Any], results: Path, name: str) -> None:
    """The record, and its chart where anything was measured and can be drawn."""
    write_record(record, name, results)
    if any("ms_per_frame" in row for row in record["backends"].values()):
        if find_spec("matplotlib"):
            draw(record, results / f"{name}.png")
        else:
            print("matplotlib is not installed: there is no chart.")


def check_results(results: Path, name: str) -> None:
    """Raise `UserError` where results could not be written: better now than after they were measured."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=(results / f"{name}.json").parent):
            pass
    except OSError as error:
        raise UserError(f"The results cannot be written ({error}); see to {results}, or give another --name.") from None


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_task_options(parser)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cold-runs", type=int, default=5, help="of cold starts; 0 leaves them out")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="all unless given")
    parser.add_argument("--fresh", action="store_true", help="a new process a run: one model in memory at a time")
    parser.add_argument("--name", default="latency", help="of the results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    quieten()
    try:
        task = task_from(arguments)
        check_results(arguments.results, arguments.name)
    except UserError as error:
        raise SystemExit(str(error)) from None
    names, absent = choose_backends(arguments.backends, task.engines)
    if not names:
        raise SystemExit(f"No backend can run here: {'; '.join(absent.values())}.")
    counts = bool(find_spec("onnx"))
    if not counts:
        print("onnx, which counts the graphs' operations, is not installed: there is no roofline.", flush=True)

    manifest = Manifest.read(task.engines)
    flops, traffic = matmul_flops(manifest.precision), copy_bytes()
    found, order = measure(names, task, arguments.runs, arguments.fresh)
    in_runtime = [name for name in names if BACKENDS[name].runtime_name and "failed" not in found[name]]
    starts = cold_starts(in_runtime, task, arguments.cold_runs)

    record = {"runs": arguments.runs, "order": order, "fresh_processes": arguments.fresh}
    record |= record_of(task, found, absent, starts)
    write_record(record, arguments.name, arguments.results)  # whatever becomes of the rest
    done: list[Run] = [run for name in names for run in found[name]["runs"]]
    if counts and done:
        record["roofline"] = roofline(task, done[0].calls, flops, traffic)
    report(record, Console())
    write(record, arguments.results, arguments.name)


if __name__ == "__main__":
    main()
