"""The step that opens the engines and runs a frame: what the next steps run on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.children import ChildFailed, apart, sentence
from bench.gpu_check.rows import FAILED, PASSED, SKIPPED, Row
from dc_rt import DepthCrafter
from dc_rt.engine import MANIFEST, EngineSet, Manifest, load_engines
from dc_rt.engine.compatibility import Unavailable, find_gpu
from dc_rt.library import LIBRARY_NAMES
from dc_rt.options import Sampling

BACKENDS = {"TensorRT": "tensorrt", "ONNX Runtime": "onnx"}
"""By the row that says that it runs: what the next steps run on, the first of them that does."""


def load_step(folder: Path, given: bool, dry_run: bool) -> Iterator[Row]:
    """Open the engines and run a frame: with TensorRT, else with ONNX Runtime on the GPU (in a dry run, on the CPU).

    What is not built yet, unless it is `given`, is no failure: PyTorch needs no engines.
    """
    if not given and not (folder / MANIFEST).exists():
        yield Row("engines", SKIPPED, note="there are none yet (make gpu-check GPU_CHECK_FLAGS='--only build')")
        return
    answer = _apart("TensorRT", try_tensorrt, folder)
    yield answer
    if answer.status != PASSED:
        yield _apart("ONNX Runtime", try_onnx, folder, dry_run)


def _apart(what: str, attempt: Callable[..., Row], *arguments: Any) -> Row:
    try:
        return apart(attempt, *arguments)
    except ChildFailed as error:
        return Row(what, FAILED, note=str(error))


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
    if not find_spec("onnxruntime"):
        return Row("ONNX Runtime", SKIPPED, note="onnxruntime is not installed")
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
