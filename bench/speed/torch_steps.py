"""The reference in PyTorch, sped up step by step: each step on top of those before it, with its figure.

    python -m bench.speed.torch_steps
    python -m bench.speed.torch_steps --size 1024x576 --frames 110        # on a GPU

The first row is the plain reference. Each further one adds a step of `dc_rt.torch_steps`; then come the other samplers
with all steps, and the other ways to compute attention with cross-attention collapsed, which no kernel should be
credited with. Every row has a process of its own and they take turns, A B C A B C. The depth of each is compared with
the plain reference's in the same precision. What this machine cannot run is named with the reason. Writes
bench/results/NAME.json; `--docs` has the table of docs/benchmarks.md made from it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.children import Child
from bench.records import RESULTS, write_record
from bench.speed.backends import load_torch, quieten
from bench.speed.latency import add_task_options, check_results, in_record, noting_failure, summary, task_from
from bench.speed.machine import describe, in_words, versions
from bench.speed.readme_table import number, replaced
from bench.speed.worker import Run, Task, peak_memory, release, run_clip, watch
from dc_rt.attention import ATTENTIONS, DEFAULT_ATTENTION, lacking
from dc_rt.engine import EngineSet, Manifest
from dc_rt.errors import UserError
from dc_rt.sampler import SAMPLERS
from dc_rt.torch_steps import TORCH_STEPS

NAME = "torch_steps"
DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"
MARKERS = ("<!-- torch_steps: made by bench/speed/torch_steps.py -->", "<!-- torch_steps: end -->")
NOT_COMPARED = ("math",)  # for its memory; see `bench.speed.backends.ON_REQUEST`


class Variant(NamedTuple):
    """A row: what is chosen, and what is new in it."""

    title: str
    attention: str
    steps: tuple[str, ...]
    sampler: str


def variants(sampler: str) -> tuple[list[Variant], dict[str, str]]:
    """The rows that can be had here, the plain reference first; and by title why the others cannot."""
    from depthcrafter.fast import lacking_for

    rows, absent = [Variant("plain", DEFAULT_ATTENTION, (), sampler)], {}
    steps: tuple[str, ...] = ()
    for name in TORCH_STEPS:
        if what := lacking_for(name):
            absent[name] = what
            continue
        steps += (name,)
        rows.append(Variant(f"+ {name}", DEFAULT_ATTENTION, steps, sampler))
    rows += [Variant(f"+ sampler {name}", DEFAULT_ATTENTION, steps, name) for name in SAMPLERS if name != sampler]
    for name in ATTENTIONS:
        if name == DEFAULT_ATTENTION or name in NOT_COMPARED:
            continue
        if what := lacking(name):
            absent[f"attention {name}"] = what
        else:
            rows.append(Variant(f"collapsed, attention by {name}", name, ("collapsed",), sampler))
    return rows, absent


def measure(rows: Sequence[Variant], task: Task, runs: int) -> dict[str, dict[str, Any]]:
    """Of each row by title its `Run`s, the seconds of the first, its depth's distance from the plain; or why not."""
    found: dict[str, dict[str, Any]] = {row.title: {"runs": []} for row in rows}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children = {row.title: stack.enter_context(Child()) for row in rows}
        plain: NDArray[np.float32] | None = None
        for row in rows:
            if "failed" in found[rows[0].title]:
                break  # there is nothing to compare with
            began = time.perf_counter()
            with noting_failure(found[row.title]):
                children[row.title].call(run_variant, *row[1:], task, folder / "depth")
                seconds = time.perf_counter() - began
                depth = np.fromfile(folder / "depth", np.float32)
                plain = depth if plain is None else plain
                difference = np.abs(depth - plain)
                found[row.title] |= {
                    "first_run_seconds": seconds,
                    "difference": {"mean": float(difference.mean()), "max": float(difference.max())},
                }
        for row in [*rows] * runs:
            note = found[row.title]
            if "failed" not in note:
                with noting_failure(note):
                    note["runs"].append(children[row.title].call(run_variant, *row[1:], task, None))
                    memory = children[row.title].call(peak_memory)
                    note |= {"peak_memory_mb": memory.host, "peak_gpu_memory_mb": memory.gpu}
    return found


# In the process of a row


def run_variant(attention: str, steps: tuple[str, ...], sampler: str, task: Task, depth_file: Path | None) -> Run:
    """Run the clip of `task`; the model stays open for the next run."""
    task = replace(task, sampling=replace(task.sampling, sampler=sampler))
    with tempfile.TemporaryDirectory() as folder:
        run = run_clip(_engines(attention, steps, task.engines), task, Path(folder), depth_file)
    release()
    return run


@cache
def _engines(attention: str, steps: tuple[str, ...], engines: Path) -> EngineSet:
    watch()
    return load_torch(engines, attention, steps)


# What is written


def record_of(
    task: Task, rows: Sequence[Variant], found: Mapping[str, dict[str, Any]], absent: Mapping[str, str], runs: int
) -> dict[str, Any]:
    """The job, the machine, and of every row what was measured or why nothing was."""
    manifest = Manifest.read(task.engines)
    made: dict[str, dict[str, Any]] = {}
    for row in rows:
        note = found[row.title]
        choice = {"attention": row.attention, "steps": row.steps, "sampler": row.sampler}
        if "failed" in note:
            made[row.title] = choice | {"absent": note["failed"]}
            continue
        rest = {key: value for key, value in note.items() if key != "runs"}
        made[row.title] = choice | rest | summary(note["runs"], found[rows[0].title]["runs"], task.frames)
    made |= {title: {"absent": reason} for title, reason in absent.items()}
    return {
        "model": manifest.model.name,
        "precision": manifest.precision,
        "job": in_record(task),
        "runs": runs,
        "machine": describe(),
        "versions": versions(("torch", "diffusers", "xformers")),
        "rows": made,
    }


def render(record: Mapping[str, Any]) -> str:
    """A record as a table in Markdown, what was not measured below it."""
    lines = [
        "| | ms/frame | UNet, ms/frame | against plain | mean, max \\|Δdepth\\| | first run |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, row in record["rows"].items():
        if "absent" in row:
            continue
        all_stages, ratio, difference = row["ms_per_frame"]["all"], row["speed_up_of_the_model"], row["difference"]
        cells = (
            title,
            f"{number(all_stages['median'])} ({number(all_stages['min'])} to {number(all_stages['max'])})",
            number(row["ms_per_frame"]["denoiser"]["median"]),
            f"{ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f})",
            f"{difference['mean']:.0e}, {difference['max']:.0e}" if difference["max"] else "0",
            f"{row['first_run_seconds']:.0f} s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    absent = [f"{title} ({row['absent']})" for title, row in record["rows"].items() if "absent" in row]
    job = record["job"]
    notes = (
        f"{record['model']} in {record['precision']}, {job['frames']} frames of {job['width']}x{job['height']}, window "
        f"{job['window']}, {job['steps']} steps; medians of {record['runs']} interleaved runs, smallest and largest in "
        f"brackets; ratios without reading and writing, each within its round. {in_words(record['machine'])}; PyTorch "
        f"{record['versions']['torch']}."
    )
    if absent:
        notes += f" Not measured: {'; '.join(absent)}."
    return "\n".join([*lines, "", notes, ""])


def main() -> None:
    """Measure, print, write; or rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_task_options(parser)
    parser.add_argument("--sampler", choices=SAMPLERS, default=next(iter(SAMPLERS)), help="of the first rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default=NAME, help="of the results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--docs", action="store_true", help=f"measure nothing, make the table of {DOCS.name} anew")
    arguments = parser.parse_args()
    if arguments.docs:
        record = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
        page = replaced(DOCS.read_text(encoding="utf-8"), render(record), MARKERS)
        DOCS.write_text(page, encoding="utf-8")
        return
    quieten()
    try:
        task = task_from(arguments)
        check_results(arguments.results, arguments.name)
    except UserError as error:
        raise SystemExit(str(error)) from None
    rows, absent = variants(arguments.sampler)
    found = measure(rows, task, arguments.runs)
    if reason := found[rows[0].title].get("failed"):
        raise SystemExit(f"The plain reference, which all is compared with, failed: {reason}.")
    record = record_of(task, rows, found, absent, arguments.runs)
    print(render(record))
    write_record(record, arguments.name, arguments.results)


if __name__ == "__main__":
    main()
