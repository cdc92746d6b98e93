"""The backends that are compared: which there are, whether this machine has them, and how to open an engine set.

To add one, add an entry to `BACKENDS`; each way of `dc_rt.attention` is one by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.attention import ATTENTIONS, DEFAULT_ATTENTION, lacking
from dc_rt.engine import GRAPHS, Array, Engine, EngineSet, Manifest, load_engines
from dc_rt.engine.compatibility import MODULES, Unavailable, choose_build
from dc_rt.errors import UserError
from dc_rt.installation import install_command

Float = NDArray[np.float32]
Call = Callable[[str, Mapping[str, Array]], Float]
"""Runs a graph: its name and its inputs by name give its output."""


@dataclass(frozen=True)
class Backend:
    """One way to run a model.

    Attributes:
        title: what tables and charts call it.
        missing: in words, what this machine lacks to run the engine set of a folder; None where it lacks nothing.
        load: opens the engine set of a folder.
        extras: of the distribution, that have to be installed for it.
        runtime_name: what `dc_rt.load_engines` calls it, where the runtime has it.
        count_cpu_nodes: of each graph, the nodes that are left to the CPU; None where that is not to be told.
    """

    title: str
    missing: Callable[[Path], str | None]
    load: Callable[[Path], EngineSet]
    extras: tuple[str, ...] = ()
    runtime_name: str | None = None
    count_cpu_nodes: Callable[[Path], dict[str, int] | None] = lambda engines: None


def wrap(engines: EngineSet, around: Callable[[str, Mapping[str, Array], Call], Float]) -> EngineSet:
    """The same engines, every run of which goes through `around(graph, inputs, run)`."""

    def run(graph: str, inputs: Mapping[str, Array]) -> Float:
        return engines(graph, **inputs)

    def open_engine(graph: str) -> Engine:
        return lambda **inputs: {graph: around(graph, inputs, run)}

    return EngineSet(engines.manifest, engines.backend, engines.device, open_engine, one_resident=False)


def quieten() -> None:
    """Keep the reference's progress bars and advice off the terminal, here and in processes to come."""
    for variable, value in (
        ("TQDM_DISABLE", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DIFFUSERS_VERBOSITY", "error"),
    ):
        os.environ.setdefault(variable, value)


def synchronise() -> None:
    """Wait for the GPU, where PyTorch is at work on one."""
    # Looked up, not imported: it would be the largest thing in the memory of the other backends.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


# ONNX Runtime is imported where it is used: without it the other backends can be measured all the same.


def _no_onnxruntime(engines: Path) -> str | None:
    if not find_spec("onnxruntime"):
        return "onnxruntime is not installed"
    flavour = Manifest.read(engines).flavour
    return None if flavour == "onnx" else f"the engine set holds {flavour} engines"


def _no_cuda(engines: Path) -> str | None:
    if reason := _no_onnxruntime(engines):
        return reason
    import onnxruntime

    from dc_rt.engine.providers import CUDA, cuda_works

    if CUDA not in onnxruntime.get_available_providers():
        return "onnxruntime-gpu is not installed"
    return None if cuda_works() else "CUDA does not work here"


def _count_cpu_nodes(engines: Path) -> dict[str, int] | None:
    """Of each graph, the nodes that CUDA left to the CPU; None where ONNX Runtime does not tell, as before 1.24."""
    import onnxruntime

    from dc_rt.engine.providers import CPU, CUDA, Provider

    manifest, counts = Manifest.read(engines), {}
    for graph in GRAPHS:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = Provider(CUDA).open(str(engines / manifest.file(graph)), settings)
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return None
        parts = session.get_provider_graph_assignment_info()
        counts[graph] = sum(len(part.get_nodes()) for part in parts if part.ep_name == CPU)
    return counts


def _no_openvino(engines: Path) -> str | None:
    if reason := _no_onnxruntime(engines):
        return reason
    return None if find_spec("openvino") else f"OpenVINO is not installed (`{install_command('openvino')}`)"


def _no_bfloat16(engines: Path) -> str | None:
    if reason := _no_openvino(engines):
        return reason
    from dc_rt.engine.openvino import computes_in

    return None if computes_in("BF16") else "the processor does not compute in bfloat16"


def _no_tensorrt(engines: Path) -> str | None:
    if not any(find_spec(module) for module in MODULES.values()):
        return "neither TensorRT nor TensorRT-RTX is installed"
    try:
        choose_build(engines, Manifest.read(engines), named=False)
    except Unavailable as error:
        return error.reason
    except UserError as error:
        return str(error).rstrip(".")
    return None


def _no_torch(engines: Path) -> str | None:
    if not find_spec("torch"):
        return "PyTorch is not installed"
    return None if find_spec("diffusers") else "diffusers is not installed"


def _no_compiler(engines: Path) -> str | None:
    if reason := _no_torch(engines):
        return reason
    from depthcrafter.fast import lacking_for

    return lacking_for("compile") or None


def _no_attention(engines: Path, name: str) -> str | None:
    return _no_torch(engines) or lacking(name) or None


def load_reference(engines: Path) -> EngineSet:
    """What others are judged by: the reference in float32 throughout, on the GPU where there is one."""
    import torch

    # By default PyTorch rounds what goes into a convolution on a GPU to 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return load_torch(engines, full_precision=True)


def load_torch(
    engines: Path, attention: str = DEFAULT_ATTENTION, steps: Sequence[str] = (), full_precision: bool = False
) -> EngineSet:
    """The reference on the checkpoint of the engine set, as `--backend torch` opens it, with more to choose."""
    import torch

    from depthcrafter import load_pipeline
    from depthcrafter.engine import torch_engines
    from depthcrafter.fast import speed_up

    manifest = Manifest.read(engines)
    cuda = torch.cuda.is_available()
    pipeline = load_pipeline(
        manifest.model.base,
        manifest.model.unet,
        dtype=torch.float16 if cuda and manifest.precision == "fp16" and not full_precision else torch.float32,
        device="cuda" if cuda else "cpu",
        attention=attention,
    )
    speed_up(pipeline, steps)
    device = torch.cuda.get_device_name() if cuda else "the CPU"
    return EngineSet(manifest, "torch", device, torch_engines(pipeline).__getitem__, one_resident=False)


EAGER = "eager"
"""The baseline: the reference's own networks in inference mode, PyTorch's default threads, 8 frames to an encoder."""

BACKENDS: dict[str, Backend] = {
    "onnx": Backend("ONNX Runtime, CPU", _no_onnxruntime, partial(load_engines, provider="cpu"), (), "onnx"),
    "onnx-cuda": Backend(
        "ONNX Runtime, CUDA", _no_cuda, partial(load_engines, provider="cuda"), (), "onnx", _count_cpu_nodes
    ),
    "tensorrt": Backend(
        "TensorRT or TensorRT-RTX", _no_tensorrt, partial(load_engines, backend="tensorrt"), ("tensorrt",), "tensorrt"
    ),
    "openvino": Backend(
        "OpenVINO, CPU", _no_openvino, partial(load_engines, provider="openvino"), ("openvino",), "onnx"
    ),
    "openvino-bf16": Backend(
        "OpenVINO, CPU, bfloat16",
        _no_bfloat16,
        partial(load_engines, provider="openvino:INFERENCE_PRECISION_HINT=bf16"),
        ("openvino",),
        "onnx",
    ),
    EAGER: Backend("PyTorch eager", _no_torch, load_torch, ("export",), "torch"),
    "compile": Backend("torch.compile", _no_compiler, partial(load_torch, steps=["compile"]), ("export",)),
} | {
    name: Backend(
        f"PyTorch, {name}",
        partial(_no_attention, name=name),
        partial(load_torch, attention=name),
        ("export", way.package) if way.package else ("export",),
    )
    for name, way in ATTENTIONS.items()
    if name != DEFAULT_ATTENTION  # that of EAGER
}
ON_REQUEST = ("math", "openvino-bf16", *(name for name, way in ATTENTIONS.items() if way.kernel))
"""Not measured unless named: the products of the first would take 93 GB for a window of 110 frames of 1024x576, the
depth of the second is not that of the others, and sdpa chooses among the rest by itself (`bench/speed/torch_steps.py`
has them side by side)."""
