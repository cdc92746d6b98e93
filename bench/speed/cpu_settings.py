"""What ONNX Runtime's settings for threads, memory and optimisation are worth on this CPU.

    python -m bench.speed.cpu_settings

Each setting has a process of its own, and they take turns, A B A B. Measured are the four graphs alone, and whole runs
of `dc-rt infer`, whose reading, spooling and writing threads share the processor with those of the model. Prints
medians of the ratios to ONNX Runtime's defaults in the same round (above 1 is faster), of wall time and of processor
time, and whether the results are those of the defaults bit for bit; writes bench/results/cpu.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.children import Child
from bench.clips import DEMO, parse_size
from bench.records import RESULTS, write_record
from bench.speed.machine import describe, in_words, versions
from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS, Array, EngineSet, Manifest
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.onnx_runtime import OnnxEngine
from dc_rt.job import Job
from dc_rt.options import Sampling, Source
from dc_rt.resize import resize_matrix


@dataclass(frozen=True)
class Setting:
    """Of a session: attributes of `onnxruntime.SessionOptions`, and entries of its configuration."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> ort.SessionOptions:
        """For a new session."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        for name, value in self.attributes.items():
            setattr(options, name, value)
        for name, value in self.entries.items():
            options.add_session_config_entry(name, value)
        return options


DEFAULTS = "defaults"
_PARALLEL = {"execution_mode": ort.ExecutionMode.ORT_PARALLEL, "inter_op_num_threads": 2}
SETTINGS: dict[str, Setting] = {
    DEFAULTS: Setting(),
    "1 thread": Setting({"intra_op_num_threads": 1}),
    "2 threads": Setting({"intra_op_num_threads": 2}),
    "no spinning": Setting(entries={"session.intra_op.allow_spinning": "0"}),
    "nodes in parallel": Setting(_PARALLEL),
    "nodes in parallel, no spinning": Setting(
        _PARALLEL, {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
    ),
    "no memory arena": Setting({"enable_cpu_mem_arena": False}),
    "no memory pattern": Setting({"enable_mem_pattern": False}),
    "basic optimisation": Setting({"graph_optimization_level": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC}),
    "extended optimisation": Setting({"graph_optimization_level": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED}),
    "denormals are zero": Setting(entries={"session.set_denormal_as_zero": "1"}),
}
OF_RUNS = (DEFAULTS, "1 thread", "no spinning", "no memory arena")
"""Those that may matter beside other threads."""


@dataclass(frozen=True)
class Took:
    """Seconds of the clock and of all the process's threads, and a hash of what was computed."""

    wall: float
    processor: float
    result: str


# In the process of a setting


def run_graph(setting: str, graph: str, height: int, width: int, frames: int) -> Took:
    """Run a graph once on random inputs, the same for all settings."""
    engine, inputs = _engine(setting, graph), _inputs(graph, height, width, frames)
    return _timed(lambda: b"".join(output.tobytes() for output in engine(**inputs).values()))


def run_job(setting: str, video: Path, frames: int, max_res: int) -> Took:
    """What `dc-rt infer` does: from a video to files, in one window; its depth is what is hashed."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            DepthCrafter(_engines(setting)),
            video,
            Sampling(window_size=frames, overlap=0),
            Source(max_res=max_res, process_length=frames),
            save_folder=folder,
        )

        def run() -> bytes:
            (depth,) = (path for path in job.run() if path.name.endswith("_depth.mp4"))
            return depth.read_bytes()

        return _timed(run)


def _timed(work: Callable[[], bytes]) -> Took:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return Took(time.perf_counter() - wall, time.process_time() - processor, sha256(result).hexdigest())


@cache
def _engines(setting: str) -> EngineSet:
    return EngineSet(Manifest.read(BUNDLED), "onnx", "the CPU", partial(_engine, setting), one_resident=False)


@cache
def _engine(setting: str, graph: str) -> OnnxEngine:
    path = BUNDLED / Manifest.read(BUNDLED).file(graph)
    return OnnxEngine(path, settings=SETTINGS[setting].options())


def _inputs(graph: str, height: int, width: int, frames: int) -> dict[str, Array]:
    model = Manifest.read(BUNDLED).model
    random = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32)

    latents = (frames, model.latent_channels, height // 8, width // 8)
    images = random.integers(0, 256, (frames, height, width, 3), np.uint8)
    if graph == "clip_encoder":
        rows, cols = (resize_matrix(side).astype(np.float32) for side in (height, width))
        return {"frames": images, "resize_rows": rows, "resize_cols": cols}
    if graph == "vae_encoder":
        return {"frames": images, "noise": np.float32(0.02) * normal(frames, 3, height, width)}
    if graph == "vae_decoder":
        return {"latents": normal(*latents)}
    return {
        "noisy": normal(1, *latents),
        "sigma": np.asarray(1.5, np.float32),
        "image_latents": normal(1, *latents),
        "embeddings": normal(1, frames, model.embedding_dim),
    }


# In turns

Rounds = Mapping[str, Sequence[Took]]


def take_turns(settings: Sequence[str], rounds: int, function: Callable[..., Took], *arguments: Any) -> Rounds:
    """For each setting what `function(setting, *arguments)` took in each round, in a process of its own.

    A round before those is of no account: it opens the graphs.
    """
    took: dict[str, list[Took]] = {name: [] for name in settings}
    with ExitStack() as stack:
        children = {name: stack.enter_context(Child()) for name in settings}
        for number in range(rounds + 1):
            for name, child in children.items():
                once = child.call(function, name, *arguments)
                if number:
                    took[name].append(once)
    return took


def compare(took: Rounds) -> dict[str, dict[str, Any]]:
    """Each setting beside the defaults: medians of seconds and of ratios by round, and whether results are equal."""
    defaults = took[DEFAULTS]
    rows = {}
    for name, runs in took.items():
        ratios = [theirs.wall / ours.wall for ours, theirs in zip(runs, defaults, strict=True)]
        work = [theirs.processor / ours.processor for ours, theirs in zip(runs, defaults, strict=True)]
        rows[name] = {
            "seconds": statistics.median(run.wall for run in runs),
            "processor_seconds": statistics.median(run.processor for run in runs),
            "speed_up": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            "processor_time": statistics.median(work),
            "deterministic": len({run.result for run in runs}) == 1,
            "same_bits": {run.result for run in runs} == {run.result for run in defaults},
        }
    return rows


def report(record: Mapping[str, Any], console: Console) -> None:
    """A table: a row a setting, a column a graph, and one for whole runs."""
    parts = record["parts"]
    job = record["job"]
    table = Table(
        "", *parts, title=f"Speed-up over the defaults, {job['width']}x{job['height']}, {job['frames']} frames"
    )
    for name in SETTINGS:
        table.add_row(name, *(_cell(part.get(name)) for part in parts.values()))
    console.print(table)
    console.print("In brackets: of wall time, smallest and largest; then of processor time. *: other bits.")
    console.print(in_words(record["machine"]), soft_wrap=True)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    ratio = row["speed_up"]
    spread = f"\\[{ratio['min']:.2f}, {ratio['max']:.2f}; {row['processor_time']:.2f}]"
    return f"{ratio['median']:.2f}{'' if row['same_bits'] else '*'} [dim]{spread}[/dim]"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=(256, 512), metavar="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--video", type=Path, default=DEMO, help="of the whole runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    height, width = arguments.size
    parts = {
        graph: compare(take_turns([*SETTINGS], arguments.rounds, run_graph, graph, height, width, arguments.frames))
        for graph in GRAPHS
    }
    runs = take_turns(OF_RUNS, arguments.rounds, run_job, arguments.video, arguments.frames, max(height, width))
    record = {
        "model": "nano",
        "job": {"height": height, "width": width, "frames": arguments.frames, "video": arguments.video.name},
        "rounds": arguments.rounds,
        "machine": describe(),
        "versions": versions(),
        "parts": parts | {"dc-rt infer": compare(runs)},
    }
    report(record, Console())
    write_record(record, "cpu", arguments.results)


if __name__ == "__main__":
    main()
