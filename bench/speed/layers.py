"""Time by layer, grouped by block of the network: from ONNX Runtime's profiler, or from TensorRT's.

    python bench/layers.py
    python bench/layers.py --backend tensorrt --size 1024x576 --window 110

A node is of the block whose weights it has; one without weights is of the block that the last of its inputs comes from.
Where a library has joined several nodes to one, it is of the block of the first that its name tells. Random inputs, in
the shapes that a video of the size has. Writes bench/results/layers.json.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.records import RESULTS, write_record
from bench.speed.latency import add_task_options, task_from
from bench.speed.machine import describe, versions
from bench.speed.worker import Task
from dc_rt.engine import GRAPHS, Array, Manifest, OpenEngine
from dc_rt.engine.compatibility import choose_build
from dc_rt.errors import UserError
from dc_rt.installation import install_command
from dc_rt.pipeline import CHUNK

NONE = "inputs"  # what is of no block
_BLOCK = re.compile(
    r"(?:down_blocks|up_blocks|layers)\.\d+|mid_block|conv_in|conv_norm_out|time_conv_out|conv_out|quant_conv|"
    r"time_embedding|add_embedding|embeddings|pre_layrnorm|post_layernorm|visual_projection"
)


@dataclass(frozen=True)
class Layer:
    """What a profiler tells of one run of a layer: its name, what it computes if that is told, and milliseconds."""

    name: str
    kind: str
    ms: float


def blocks_of(path: Path) -> dict[str, str]:
    """The block of every node of a graph, by the names of the node and of what it makes; needs onnx."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {each.name: found[0] for each in graph.initializer if (found := _BLOCK.findall(each.name))}
    made_by: dict[str, int] = {}
    blocks: list[str] = []
    for number, node in enumerate(graph.node):
        own = [weights[name] for name in node.input if name in weights]
        before = [made_by[name] for name in node.input if name in made_by]
        blocks.append(own[0] if own else blocks[max(before)] if before else NONE)
        made_by |= dict.fromkeys(node.output, number)
    # What comes from the inputs alone, through weights that have lost their names, is of the block that takes it.
    takers: dict[int, int] = {}
    for number in reversed(range(len(blocks))):
        if blocks[number] == NONE and number in takers:
            blocks[number] = blocks[takers[number]]
        takers |= {made_by[name]: number for name in graph.node[number].input if name in made_by}
    return {
        name: block
        for node, block in zip(graph.node, blocks, strict=True)
        if node.op_type != "Cast"  # of weights, which stand before everything else
        for name in (node.name, *node.output)
    }


def block_of(layer: str, blocks: Mapping[str, str]) -> str | None:
    """The block of a layer by its name, which may be that of a node or hold some; None where it tells none."""
    for name in re.findall(r"\w+", layer):
        # Optimisers add to a node's name: "conv2d_1_nchwc", for example.
        while name:
            if name in blocks:
                return blocks[name]
            name = name.rpartition("_")[0]
    return None


def random_inputs(task: Task, manifest: Manifest, seed: int = 0) -> dict[str, dict[str, Array]]:
    """The inputs of every graph by name, in the shapes that the task's video has."""
    rng = np.random.default_rng(seed)
    height, width, n, window = task.height, task.width, CHUNK, task.sampling.window_size
    latent = (manifest.model.latent_channels, height // 8, width // 8)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    frames = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    return {
        "clip_encoder": {
            "frames": frames,
            "resize_rows": np.full((224, height), 1 / height, np.float32),
            "resize_cols": np.full((224, width), 1 / width, np.float32),
        },
        "vae_encoder": {"frames": frames, "noise": normal(n, 3, height, width)},
        "denoiser": {
            "noisy": normal(1, window, *latent),
            "sigma": np.array(1, np.float32),
            "image_latents": normal(1, window, *latent),
            "embeddings": normal(1, window, manifest.model.embedding_dim),
        },
        "vae_decoder": {"latents": normal(n, *latent)},
    }


def onnx_layers(path: Path, inputs: Mapping[str, Array], provider: str | None) -> list[Layer]:
    """The layers of one run of a graph after a first, as ONNX Runtime's profiler tells them."""
    import onnxruntime

    from dc_rt.engine.providers import choose_provider

    settings = onnxruntime.SessionOptions()
    settings.enable_profiling = True
    settings.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        settings.profile_file_prefix = str(Path(folder, "profile"))
        session = choose_provider(provider).open(str(path), settings)
        for _ in range(2):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    return list(_of_the_last_run(events))


def _of_the_last_run(events: Iterable[Mapping[str, Any]]) -> Iterator[Layer]:
    runs = [event["ts"] for event in events if event.get("name") == "model_run"]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[-1]:
            yield Layer(event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"] / 1000)


def tensorrt_layers(engine: Any, inputs: Mapping[str, Array]) -> list[Layer]:
    """The layers of one run of an engine after a first, as TensorRT's profiler tells them."""
    engine(**inputs)
    layers: list[Layer] = []
    engine.profile(lambda name, ms: layers.append(Layer(name, "", ms)))
    engine(**inputs)
    return layers


def summed(layers: Iterable[Layer], blocks: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Milliseconds and number of layers of every block, in the order of the network.

    A layer of the library's own, such as one that turns an array into another layout, is of the block before it.
    """
    found: dict[str, dict[str, float]] = {block: {"ms": 0.0, "layers": 0} for block in [NONE, *blocks.values()]}
    block = NONE
    for layer in layers:
        block = block_of(layer.name, blocks) or block
        found[block]["ms"] += layer.ms
        found[block]["layers"] += 1
    return {block: row for block, row in found.items() if row["layers"]}


def by_kind(layers: Iterable[Layer]) -> dict[str, float]:
    """Milliseconds of every kind of operation, the most first; of those that have one."""
    found: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        found[layer.kind] += layer.ms
    return dict(sorted(((kind, ms) for kind, ms in found.items() if kind), key=lambda each: -each[1]))


def measure(task: Task, backend: str, provider: str | None) -> dict[str, Any]:
    """Of every graph the time of its blocks and kinds of operations, and how many frames a run has."""
    manifest = Manifest.read(task.engines)
    inputs = random_inputs(task, manifest)
    record: dict[str, Any] = {}
    open_engine = _open_tensorrt(task.engines, manifest) if backend == "tensorrt" else None
    for graph in GRAPHS:
        path = task.engines / manifest.file(graph)
        if open_engine is None:
            layers = onnx_layers(path, inputs[graph], provider)
        else:
            layers = tensorrt_layers(open_engine(graph), inputs[graph])
        frames = task.sampling.window_size if graph == "denoiser" else CHUNK
        record[graph] = {"frames": frames, "blocks": summed(layers, blocks_of(path)), "kinds": by_kind(layers)}
    return record


def _open_tensorrt(folder: Path, manifest: Manifest) -> OpenEngine:
    """Raises `UserError` where the set has no engines that run here."""
    from dc_rt.engine.tensorrt import open_engines

    return open_engines(folder, choose_build(folder, manifest, named=True), "none")[0]


def report(graphs: Mapping[str, Any], console: Console) -> None:
    """A table a graph."""
    for graph, found in graphs.items():
        total = sum(row["ms"] for row in found["blocks"].values())
        table = Table("block", "layers", "ms", "ms a frame", "share", title=f"{graph}, {found['frames']} frames")
        for block, row in found["blocks"].items():
            figures = (f"{row['layers']:.0f}", f"{row['ms']:.2f}", f"{row['ms'] / found['frames']:.3f}")
            table.add_row(block, *figures, f"{row['ms'] / total:.1%}")
        console.print(table)
        kinds = ", ".join(f"{kind} {ms / total:.0%}" for kind, ms in list(found["kinds"].items())[:8])
        if kinds:
            console.print(f"by operation: {kinds}", soft_wrap=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_task_options(parser)
    parser.add_argument("--backend", choices=("onnx", "tensorrt"), default="onnx")
    parser.add_argument("--provider", help="of ONNX Runtime, as dc-rt infer takes it")
    parser.add_argument("--name", default="layers", help="of the results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    if not find_spec("onnx"):
        raise SystemExit(f"onnx, which tells the blocks of nodes, is not installed; run `{install_command('export')}`.")
    try:
        task = task_from(arguments)
        graphs = measure(task, arguments.backend, arguments.provider)
    except UserError as error:
        raise SystemExit(str(error)) from None
    report(graphs, Console())
    job = {"engines": task.engines.name, "height": task.height, "width": task.width}
    machine = {"machine": describe(), "versions": versions()}
    write_record(
        {"job": job, "backend": arguments.backend, **machine, "graphs": graphs}, arguments.name, arguments.results
    )


if __name__ == "__main__":
    main()
