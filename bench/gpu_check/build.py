"""The steps that make engines: graphs from a checkpoint, and TensorRT engines from graphs.

What a step has made when its time ends is kept, and the next call goes on from there: a graph is exported whole or not
at all, engines one by one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from bench.gpu_check.models import Check
from bench.gpu_check.rows import PASSED, SKIPPED, Row, StepFailed
from dc_export.build import choose_flavour
from dc_rt.engine import GRAPHS, Manifest
from dc_rt.engine.compatibility import MODULES
from dc_rt.errors import UserError
from dc_rt.library import LIBRARY_NAMES


def graphs_step(check: Check, folder: Path, given: bool) -> Iterator[Row]:
    """Export the graphs, unless they are given or up to date."""
    if given:
        Manifest.read(folder)  # or what is given is no engine set
        yield Row("graphs", SKIPPED, note=f"those of {folder.name} are given")
        return
    began = time.perf_counter()
    before = _created(folder)
    source = ("--base", check.source, "--unet", check.source, "--name", check.name)
    form = ("--target", "tensorrt", "--precision", "fp16", "--profile", check.profile)
    _dc_export("onnx", *source, *form, "--out", folder)
    kept = "kept, as nothing that they are made from has changed" if _created(folder) == before else ""
    yield Row("graphs", PASSED, f"{time.perf_counter() - began:.0f} s", note=kept)


def build_step(check: Check, folder: Path, given: bool) -> Iterator[Row]:
    """Have the graphs, and build an engine of each: TensorRT's where it is installed, else TensorRT-RTX's."""
    yield from graphs_step(check, folder, given)
    if not any(find_spec(module) for module in MODULES.values()):
        yield Row("engines", SKIPPED, note="neither TensorRT nor TensorRT-RTX is installed")
        return
    try:
        flavour, targets = choose_flavour("auto")
    except UserError as error:
        yield Row("engines", SKIPPED, note=str(error))
        return
    _dc_export("build", folder, "--flavour", flavour)
    build = Manifest.read(folder).builds[flavour]
    for graph in GRAPHS:
        engine = build.engines[graph]
        memory = f"{engine.weights_bytes / 1e6:.0f} MB of weights, {engine.activation_bytes / 1e6:.0f} of activations"
        yield Row(f"engine of {graph}", PASSED, f"{engine.seconds:.0f} s", note=memory)
    library = f"{LIBRARY_NAMES[flavour]} {build.version}, profile {build.profile.name}"
    yield Row("engines", PASSED, f"all {len(build.engines)}", note=f"{library}, for {', '.join(targets)}")


def _created(folder: Path) -> str | None:
    """When the graphs in a folder were exported; None where there are none."""
    try:
        return Manifest.read(folder).created
    except UserError:
        return None


def _dc_export(*arguments: str | Path) -> None:
    """Run `dc-export`, printing what it says as it comes; raises `StepFailed` with its last line where it fails."""
    command = [sys.executable, "-m", "dc_export.cli", *map(str, arguments)]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                print(last, flush=True)
    if process.returncode < 0:
        killer = signal.Signals(-process.returncode).name
        raise StepFailed(f"dc-export {arguments[0]} was ended by {killer}; the last it said was: {last}")
    if process.returncode:
        raise StepFailed(last or f"dc-export {arguments[0]} ended with status {process.returncode}")
