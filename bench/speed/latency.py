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
from bench.clips import DEFAULT_FRAMES, DEFAULT_SIZE, DEFAULT_WINDOW, DEMO, nearest_size, parse_size
from bench.records import RESULTS, pyplot, write_record
from bench.speed import gpu_memory
from bench.speed.backends import BACKENDS, EAGER, ON_REQUEST, quieten
from bench.speed.installed import installed_bytes
from bench.speed.machine import copy_bytes, describe, in_words, matmul_flops, versions
from bench.speed.worker import STAGES, BackendProcess, Run, Task
from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS, Manifest
from dc_rt.engine.discovery import Wanted, choose, find_candidates, runs_as
from dc_rt.errors import UserError
from dc_rt.options import Sampling, default_overlap
from dc_rt.pipeline import CHUNK

PUBLISHED = {
    "title": "the original, published: A100, 1024x576",
    "ms_per_frame": 465,
    "ms_per_frame_before": 1914,
    "gpu_memory_gb": 26,
    "source": "the README of Tencent/DepthCrafter, for its versions 1.0.1 and 1.0.0",
}
"""What the original's authors state; nothing of it was measured here, and no ratio is made of it."""

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
            opened = {"device": process.opened.device, "title": process.opened.title}
            found[name] |= opened | {"nodes_on_the_cpu": process.opened.cpu_nodes} | seconds
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
                    found[name] |= {"gpu_memory_of": memory.gpu_of}
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
                loaded, first_depth = apart(cold_start, task, name)
            except ChildFailed as error:
                print(f"A cold start of {BACKENDS[name].title} failed: {error}", flush=True)
                continue
            seconds[name].append((loaded - began, first_depth - began))
    return seconds


def cold_start(task: Task, backend: str) -> tuple[float, float]:
    """In a process of its own: when the model is loaded, and when the depth of a video of one frame is there."""
    model = DepthCrafter(BACKENDS[backend].load(task.engines))
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
        "published": PUBLISHED,
        "not_told": not_told(found),
    }


def not_told(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What this environment cannot measure of the backends that ran, each in a sentence."""
    sentences = []
    if EAGER not in found or "failed" in found[EAGER]:
        sentences.append("PyTorch eager did not run: there is no speed-up and no difference to tell.")
    if reason := gpu_memory.missing():
        sentences.append(f"Memory on a GPU is not told, as {reason}.")
    elif any(row.get("gpu_memory_of") == "device" for row in found.values()):
        sentences.append(
            "The driver does not tell GPU memory by process: it is what the GPU had in use more than before."
        )
    if not find_spec("packaging"):
        sentences.append("Installed sizes are not told, as packaging is not installed.")
    if not find_spec("onnx"):
        sentences.append("There is no roofline, as onnx, which counts the graphs' operations, is not installed.")
    if not find_spec("matplotlib"):
        sentences.append("There is no chart, as matplotlib is not installed.")
    return sentences


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
    published = record["published"]
    table = Table("", *(row["title"] for row in present.values()), f"[dim]{published['title']}[/dim]", title=title)
    for stage in (*STAGES, "all"):
        cells = [_in_brackets(row["ms_per_frame"][stage], ".1f") for row in present.values()]
        told = f"[dim]{published['ms_per_frame']} ({published['ms_per_frame_before']} before)[/dim]"
        cells.append(told if stage == "all" else "")
        table.add_row(STAGE_TITLES.get(stage, "in all"), *cells, end_section=stage == STAGES[-1])
    rows = {
        "speed-up over PyTorch eager": lambda row: _in_brackets(row.get("speed_up"), ".2f"),
        "without reading and writing": lambda row: _in_brackets(row.get("speed_up_of_the_model"), ".2f"),
        "depth, mean and max difference": lambda row: _pair(row.get("difference")),
        "peak memory, MB": lambda row: f"{row['peak_memory_mb']:.0f}",
        "peak GPU memory, MB": lambda row: _number(row["peak_gpu_memory_mb"]),
        "nodes left to the CPU": lambda row: _total(row.get("nodes_on_the_cpu")),
        "first run, s": lambda row: f"{row['first_run_seconds']:.1f}",
        "cold start, s": lambda row: _in_brackets(row.get("cold_start_seconds"), ".2f"),
        "installed, MB": lambda row: _number(row["installed_mb"]),
    }
    for label, cell in rows.items():
        told = f"[dim]{1000 * published['gpu_memory_gb']}[/dim]" if label == "peak GPU memory, MB" else ""
        table.add_row(label, *(cell(row) for row in present.values()), told)
    console.print(table)
    for row in record["backends"].values():
        if "absent" in row:
            verdict = "failed" if row.get("failed") else "absent"
            console.print(f"{row['title']}: {verdict}, as {row['absent']}", soft_wrap=True, markup=False)
    for sentence in record["not_told"]:
        console.print(sentence, soft_wrap=True, markup=False)

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


def _total(counts: Mapping[str, int] | None) -> str:
    return "" if counts is None else str(sum(counts.values()))


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
        "--size",
        type=parse_size,
        metavar="WIDTHxHEIGHT",
        help="the best of the engine set on a GPU; on the CPU the nearest to 320x192 that it runs",
    )
    parser.add_argument("--frames", type=int, help="a window on a GPU; on the CPU 32 of 320x192, fewer of larger ones")
    parser.add_argument("--window", type=int, help="the best of the engine set on a GPU; on the CPU 16 at most")
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
    running = runs_as(engines, manifest, "auto")
    profile, on_gpu = running.profile, running.flavour != "onnx"
    best = profile.shapes[0].best if on_gpu else nearest_size(profile, DEFAULT_SIZE)
    height, width = arguments.size or best
    frames = arguments.frames or (profile.frames.opt if on_gpu else cpu_frames(height, width))
    longest = profile.frames.opt if on_gpu else min(DEFAULT_WINDOW, frames)
    window = arguments.window or min(longest, profile.frames.max)
    if not arguments.size:
        why = "the best size of the set" if on_gpu else "the nearest to 320x192 that the set runs, as there is no GPU"
        print(f"{engines}: {width}x{height}, {why}; --size has another", flush=True)
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
    return Task(engines.resolve(), arguments.video, height, width, frames, sampling)


def cpu_frames(height: int, width: int) -> int:
    """As many frames of a size as a CPU does in the time of the default ones, about; at least a chunk."""
    smallest = DEFAULT_SIZE[0] * DEFAULT_SIZE[1]
    return max(DEFAULT_FRAMES * smallest // (height * width), CHUNK)


def choose_backends(wanted: Sequence[str] | None, engines: Path) -> tuple[list[str], dict[str, str]]:
    """The backends to run, of those wanted or of all, and why the others cannot."""
    names = wanted or [name for name in BACKENDS if name not in ON_REQUEST]
    absent = {}
    for name in names:
        if reason := BACKENDS[name].missing(engines):
            absent[name] = reason
    return [name for name in names if name not in absent], absent


def write(record: Mapping[str, Any], results: Path, name: str) -> None:
    """The record, and its chart where anything was measured and can be drawn."""
    write_record(record, name, results)
    if any("ms_per_frame" in row for row in record["backends"].values()) and find_spec("matplotlib"):
        draw(record, results / f"{name}.png")


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
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, help=f"all but {' and '.join(ON_REQUEST)} unless given"
    )
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
    manifest = Manifest.read(task.engines)
    flops, traffic = matmul_flops(manifest.precision), copy_bytes()
    found, order = measure(names, task, arguments.runs, arguments.fresh)
    in_runtime = [name for name in names if BACKENDS[name].runtime_name and "failed" not in found[name]]
    starts = cold_starts(in_runtime, task, arguments.cold_runs)

    record = {"runs": arguments.runs, "order": order, "fresh_processes": arguments.fresh}
    record |= record_of(task, found, absent, starts)
    write_record(record, arguments.name, arguments.results)  # whatever becomes of the rest
    done: list[Run] = [run for name in names for run in found[name]["runs"]]
    if done and find_spec("onnx"):
        record["roofline"] = roofline(task, done[0].calls, flops, traffic)
    report(record, Console())
    write(record, arguments.results, arguments.name)


if __name__ == "__main__":
    main()
