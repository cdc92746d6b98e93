"""The counted limit: the least time a frame that the real networks take on a GPU, from what is published of it.

    python -m bench.speed.limits                # counts, prints, and writes bench/results/limits.json

**A calculation: nothing runs.** The networks of the real configuration are built without weights and called without
memory (PyTorch's meta device), and what they would compute is counted, with cross-attention collapsed as it is in every
engine: operations of products (matrix products, convolutions, attention), two a multiplication, and bytes read and
written. Assumed is that

- the UNet is evaluated in windows of 110 frames of which 85 are new, so that a frame costs evaluations * 110/85; CLIP
  and the VAE see every frame once, in chunks of 8. Half precision throughout, or the VAE's encoder in TF32;
- products reach `REACHED_OPERATIONS` of the published dense peak, and traffic `REACHED_TRAFFIC` of the published
  bandwidth: about what libraries show on large, plain work. Nothing is left out for launches, the host, or heat;
- *fused*, the lower figure: all between products costs nothing, and a product takes as long as its arithmetic or its
  traffic, whichever is longer; on GeForce cards, which run half as fast when they sum in float32, sums are in float16;
- *loose*, the upper figure: every operation between products reads its inputs and writes its output beside that; sums
  are in float32. Attention is one kernel in both.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.records import RESULTS, write_record
from bench.speed.flops import Cost
from dc_rt.options import Sampling
from dc_rt.pipeline import CHUNK
from dc_rt.sampler import SAMPLERS
from depthcrafter.collapse import collapse_cross_attention
from depthcrafter.layout import CONFIGS, CheckpointConfig, build_image_encoder, build_unet, build_vae

HEIGHT, WIDTH = 576, 1024
REACHED_OPERATIONS = 0.7
REACHED_TRAFFIC = 0.85


@dataclass(frozen=True)
class Gpu:
    """Published figures of a GPU, dense: 10^12 operations a second in half precision and in TF32, 10^9 bytes a second.

    `half_sums` is half precision with sums in float16, where that is faster.
    """

    half: float
    tf32: float
    bandwidth: float
    half_sums: float = 0.0


# From NVIDIA's data sheets (H100, H200, A100, L4) and architecture white papers (GA102, AD102, GB202).
GPUS = {
    "H200 SXM": Gpu(989.4, 494.7, 4800),
    "H100 SXM": Gpu(989.4, 494.7, 3350),
    "A100 SXM 80 GB": Gpu(312, 156, 2039),
    "RTX 5090": Gpu(209.5, 104.8, 1792, 419),
    "RTX 4090": Gpu(165.2, 82.6, 1008, 330.3),
    "RTX 3090": Gpu(71, 35.6, 936, 142),
}


@dataclass
class Work:
    """What a network computes: every product, and the bytes that all between them reads and writes."""

    products: list[Cost] = field(default_factory=list)
    other_bytes: int = 0

    @property
    def flops(self) -> int:
        """Operations of all products."""
        return sum(cost.flops for cost in self.products)

    def fused(self, flops: float, traffic: float) -> float:
        """Seconds where only products cost, each at its roofline."""
        return sum(cost.seconds(flops, traffic) for cost in self.products)

    def loose(self, flops: float, traffic: float) -> float:
        """Seconds where everything between products reads and writes memory too."""
        return self.fused(flops, traffic) + self.other_bytes / traffic


def count(call: Callable[[], object]) -> Work:
    """What a call on the meta device would compute."""
    work = Work()
    with torch.no_grad(), _CountAttention(work), _CountRest(work):
        call()
    return work


class _CountAttention(TorchFunctionMode):
    """Attention as one kernel, which the meta device would take apart: it writes no scores."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        query, key, value = (*args, *(kwargs or {}).values())[:3]
        made = query.new_empty(*query.shape[:-1], value.shape[-1])
        products = math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        self._work.products.append(Cost(2 * products, _bytes([query, key, value, made])))
        return made


class _CountRest(TorchDispatchMode):
    """Everything else, operation by operation, but for views, which touch nothing."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if function.is_view or function in _UNTOUCHED:
            return made
        touched = _bytes([*tree_leaves(args), *tree_leaves(made)])
        if flops := flop_registry.get(function.overloadpacket):
            self._work.products.append(Cost(flops(*args, **(kwargs or {}), out_val=made), touched))
        else:
            self._work.other_bytes += touched
        return made


_UNTOUCHED = {torch.ops.aten._unsafe_view.default, torch.ops.aten.new_empty.default, torch.ops.aten.empty.memory_format}


def _bytes(values: list[Any]) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def networks(config: CheckpointConfig, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Work]:
    """A frame's share of each network's work, all but `encoder_tf32` in half precision.

    `unet` is one evaluation of a whole window; `clip`, `encoder`, `encoder_tf32` and `decoder` are a chunk each.
    """
    window = Sampling.window_size
    h, w = height // 8, width // 8

    def empty(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    with torch.device("meta"):
        unet, vae, clip = build_unet(config), build_vae(config), build_image_encoder(config)
    collapse_cross_attention(unet)
    for network in (unet, vae, clip):
        network.eval().to(device="meta", dtype=torch.float16)
    sample, embeddings, ids = empty(1, window, 8, h, w), empty(1, window, config.embedding_dim), empty(1, 3)
    evaluation = count(lambda: unet(sample, empty(), embeddings, ids, return_dict=False))
    made = {
        "unet": (evaluation, window),
        "clip": (count(lambda: clip(empty(CHUNK, 3, 224, 224))), CHUNK),
        "encoder": (count(lambda: vae.encode(empty(CHUNK, 3, height, width))), CHUNK),
        "decoder": (count(lambda: vae.decode(empty(CHUNK, 4, h, w), num_frames=CHUNK)), CHUNK),
    }
    vae.float()
    made["encoder_tf32"] = (count(lambda: vae.encode(empty(CHUNK, 3, height, width, dtype=torch.float32))), CHUNK)
    return {name: _share(work, frames) for name, (work, frames) in made.items()}


def _share(work: Work, frames: int) -> Work:
    return Work(
        [Cost(cost.flops // frames, cost.bytes // frames) for cost in work.products], work.other_bytes // frames
    )


def evaluations(sampler: str) -> float:
    """Of the UNet a frame: those of the sampler in as many steps as are usual, and again where windows overlap."""
    usual = Sampling()
    return sum(SAMPLERS[sampler].evaluations(usual.steps)) * usual.window_size / (usual.window_size - usual.overlap)


def milliseconds(parts: Mapping[str, Work], gpu: Gpu, sampler: str, encoder: str) -> tuple[float, float]:
    """A frame's least time, fused and loose; `encoder` is "fp16" or "tf32"."""
    traffic = gpu.bandwidth * 1e9 * REACHED_TRAFFIC
    encoding = parts["encoder" if encoder == "fp16" else "encoder_tf32"]

    def total(seconds: Callable[[Work, float], float], half: float) -> float:
        rate = half * 1e12 * REACHED_OPERATIONS
        encoding_rate = rate if encoder == "fp16" else gpu.tf32 * 1e12 * REACHED_OPERATIONS
        rest = seconds(parts["clip"], rate) + seconds(parts["decoder"], rate) + seconds(encoding, encoding_rate)
        return 1e3 * (evaluations(sampler) * seconds(parts["unet"], rate) + rest)

    return (
        total(lambda work, rate: work.fused(rate, traffic), gpu.half_sums or gpu.half),
        total(lambda work, rate: work.loose(rate, traffic), gpu.half),
    )


def record_of(parts: Mapping[str, Work]) -> dict[str, Any]:
    """What was counted and what follows, by GPU, sampler and the encoder's precision."""
    rows = [
        {
            "gpu": name,
            "sampler": sampler,
            "encoder": encoder,
            "ms_per_frame": milliseconds(parts, gpu, sampler, encoder),
        }
        for name, gpu in GPUS.items()
        for sampler in SAMPLERS
        for encoder in ("tf32", "fp16")
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "steps": Sampling.steps,
        "reached": {"operations": REACHED_OPERATIONS, "traffic": REACHED_TRAFFIC},
        "evaluations_per_frame": {sampler: evaluations(sampler) for sampler in SAMPLERS},
        "tflop_per_frame": {name: work.flops / 1e12 for name, work in parts.items()},
        "gb_per_frame": {
            name: {"products": sum(cost.bytes for cost in work.products) / 1e9, "other": work.other_bytes / 1e9}
            for name, work in parts.items()
        },
        "rows": rows,
    }


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    record = record_of(networks(CONFIGS["full"]))
    print(f"Calculated, not measured: {record['width']}x{record['height']}, {record['steps']} steps, ms a frame.")
    for part, tflop in record["tflop_per_frame"].items():
        traffic = record["gb_per_frame"][part]
        print(
            f"  {part}: {tflop:.2f} TFLOP, {traffic['products']:.2f} GB by products, {traffic['other']:.2f} GB between"
        )
    for row in record["rows"]:
        fused, loose = row["ms_per_frame"]
        print(f"{row['gpu']}, {row['sampler']}, encoder in {row['encoder']}: {fused:.0f} to {loose:.0f}")
    write_record(record, "limits", arguments.results)


if __name__ == "__main__":
    main()
