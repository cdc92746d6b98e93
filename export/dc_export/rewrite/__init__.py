"""Exported graphs, rewritten for what runs them: for TensorRT, so that it builds them and needs little memory; for ONNX
Runtime, so that it has a kernel for every node.

All of it happens after the export: slices written in PyTorch triple the time that tracing takes. A rule knows how often
it must match the network that was traced: where it matches another number of times, such as none because a library
writes a layer otherwise now, the export ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass
from torch import nn

from dc_export.rewrite import layers, rules
from dc_export.rewrite.half_weights import store_half_weights
from dc_export.rewrite.instance_norm import use_instance_normalization
from dc_rt.errors import UserError


@dataclass(frozen=True)
class Rule:
    """What changes a graph in place and says how many times it matched, and how many times it must, of a network."""

    rewrite: Callable[[ir.Model], int]
    matches: Callable[[nn.Module], int]

    @property
    def name(self) -> str:
        return self.rewrite.__name__


ONNX = (Rule(use_instance_normalization, layers.group_normalizations),)
TENSORRT = (
    Rule(rules.decompose_attention, layers.attentions_without_kernel),
    Rule(rules.blend_residuals, layers.blends_with_a_residual),
    Rule(rules.normalize_over_frames, layers.half_normalizations_over_frames),
    Rule(rules.split_feed_forwards, layers.gated_feed_forwards),
    Rule(rules.slice_temporal_transformers, layers.large_temporal_transformers),
    Rule(rules.slice_feed_forwards, layers.feed_forwards_in_no_slice),
)
# Without slices: a layer's tensors are whole, which takes memory and saves the time to cut and join them.
PLAIN = TENSORRT[:4]
# Slices over frames too, which costs time: in the graph more copies, at the build more layers.
LOW_MEMORY = (
    *TENSORRT[:4],
    Rule(rules.slice_spatial_layers, layers.large_spatial_layers),
    TENSORRT[4],
    Rule(rules.slice_feed_forwards, layers.feed_forwards_of_small_levels),
)


def rewrite_graph(
    model: ir.Model, network: nn.Module, name: str, target: str, low_memory: bool = False, plain: bool = False
) -> None:
    """Rewrite a graph as exported, with its symbolic shapes.

    Args:
        model: changed in place.
        network: what it was traced from.
        name: of the graph, for messages.
        target: "onnx" or "tensorrt".
        low_memory: for TensorRT, trade time for memory.
        plain: for TensorRT, trade memory for time.

    Raises:
        UserError: a rule matches another number of times than the network has of what it is for.
    """
    if target == "onnx":
        apply(ONNX, model, network, name)
        store_half_weights(model)
    else:
        apply(LOW_MEMORY if low_memory else PLAIN if plain else TENSORRT, model, network, name)
        NameFixPass()(model)


def apply(rules: tuple[Rule, ...], model: ir.Model, network: nn.Module, name: str) -> None:
    """Apply rules in turn; raises `UserError` as `rewrite_graph` does."""
    for rule in rules:
        expected = rule.matches(network)
        try:
            found = str(rule.rewrite(model))
        except (ValueError, LookupError, StopIteration) as error:
            found = f"a part that it does not fit ({error or type(error).__name__})"
        if found != str(expected):
            raise UserError(
                f"The rule {rule.name} must match {expected} times in {name} and found {found}: diffusers "
                f"{version('diffusers')} and transformers {version('transformers')} write this network in another way; "
                "install the versions that constraints.txt has."
            )
