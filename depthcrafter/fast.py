"""The reference at its best: the steps of `dc_rt.torch_steps`, each a small function on a pipeline.

After gpt-fast: every step stands by itself, and has its figure (`bench/speed/torch_steps.py`). A step either replaces
layers, or replaces the `forward` of a network, so that they can be stacked in any number.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dc_rt.errors import UserError, option
from dc_rt.torch_steps import check_torch_steps
from depthcrafter.collapse import collapse_cross_attention

if TYPE_CHECKING:
    from depthcrafter.reference import DepthCrafterPipeline

Forward = Callable[..., Any]


def speed_up(pipeline: DepthCrafterPipeline, names: Iterable[str]) -> None:
    """Apply steps to a pipeline that is where it will run, in the order of the table.

    Raises:
        UserError: there is no such step, or it cannot be had here.
    """
    steps = check_torch_steps(names)
    check_steps_here(steps)
    for name in steps:
        STEPS[name](pipeline)


def check_steps_here(names: Iterable[str]) -> None:
    """Raise `UserError` for a step that this machine cannot do: better before anything is loaded than after."""
    for name in names:
        if what := lacking_for(name):
            raise UserError(f"{option('torch_steps', name)} cannot be used, as {what}; leave it out.")


def lacking_for(name: str) -> str:
    """What this machine lacks for a step, as a clause; "" for nothing."""
    if name == "cuda-graph" and not torch.cuda.is_available():
        return "PyTorch sees no CUDA device here"
    if name != "compile":
        return ""
    if torch.cuda.is_available():
        return "" if find_spec("triton") else "triton, which compiles for the GPU, is not installed"
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    return "" if any(name and shutil.which(name) for name in compilers) else "there is no C++ compiler"


def _collapse(pipeline: DepthCrafterPipeline) -> None:
    collapse_cross_attention(pipeline.unet)


def _channels_last(pipeline: DepthCrafterPipeline) -> None:
    """Weights of convolutions with the channels innermost, which their outputs follow.

    The temporal convolutions' too: frames [T,C,h,w] with the channels innermost are, seen as [1,C,T,h,w], a volume of
    this layout, so that going from one to the other copies nothing.
    """
    layouts = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    for network in (pipeline.unet, pipeline.vae):
        for layer in network.modules():
            if layout := layouts.get(type(layer)):
                layer.to(memory_format=layout)


def compiled_parts(pipeline: DepthCrafterPipeline) -> tuple[nn.Module, ...]:
    """What the step `compile` compiles: nearly all that each of the four graphs computes."""
    return pipeline.image_encoder, pipeline.vae.encoder, pipeline.unet, pipeline.vae.decoder


def _compile(pipeline: DepthCrafterPipeline) -> None:
    for network in compiled_parts(pipeline):
        network.forward = torch.compile(network.forward)


def _record_graphs(pipeline: DepthCrafterPipeline) -> None:
    pipeline.unet.forward = GraphedForward(pipeline.unet.forward)


STEPS: Mapping[str, Callable[[DepthCrafterPipeline], None]] = {
    "collapsed": _collapse,
    "channels_last": _channels_last,
    "compile": _compile,
    "cuda-graph": _record_graphs,
}


class GraphedForward:
    """A network's `forward` as CUDA graphs, one for every set of shapes that it is called with.

    A kernel that is replayed reads and writes where it did when it was recorded: inputs are copied there, and the
    output is copied out, so that the next call does not change what the caller holds.
    """

    WARM_UPS = 3  # libraries choose their kernels, and compilers compile, in the first runs: none may be recorded

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._graphs: dict[tuple[Any, ...], Callable[..., torch.Tensor]] = {}

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        added_time_ids: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """As `DepthCrafterUNet.forward` without a dict."""
        if return_dict:
            raise ValueError("A recorded UNet returns a tuple.")
        inputs = (sample, timestep, encoder_hidden_states, added_time_ids)
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._record(inputs)
        return (self._graphs[key](*inputs),)

    def _record(self, inputs: tuple[torch.Tensor, ...]) -> Callable[..., torch.Tensor]:
        fixed = [tensor.clone() for tensor in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(self.WARM_UPS):
                self._forward(*fixed, return_dict=False)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            (output,) = self._forward(*fixed, return_dict=False)

        def replay(*tensors: torch.Tensor) -> torch.Tensor:
            for place, tensor in zip(fixed, tensors, strict=True):
                place.copy_(tensor)
            graph.replay()
            result: torch.Tensor = output.clone()
            return result

        return replay
