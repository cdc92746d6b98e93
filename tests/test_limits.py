"""The counted limit counts what the exported graphs compute, and follows from it as it says."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from bench.records import RESULTS
from bench.speed.flops import Cost
from bench.speed.flops import count as count_graph
from bench.speed.limits import GPUS, REACHED_OPERATIONS, REACHED_TRAFFIC, Gpu, Work, count, milliseconds, networks
from bench.speed.readme_table import CALCULATED_FOR
from dc_rt.engine.discovery import BUNDLED
from dc_rt.options import Sampling
from dc_rt.pipeline import CHUNK
from dc_rt.sampler import SAMPLERS
from depthcrafter.layout import CONFIGS

HEIGHT, WIDTH = 128, 192


@pytest.fixture(scope="module")
def nano() -> Mapping[str, Work]:
    return networks(CONFIGS["nano"], HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("graph", "part", "frames"),
    [
        ("denoiser", "unet", Sampling.window_size),
        ("clip_encoder", "clip", CHUNK),
        ("vae_encoder", "encoder", CHUNK),
        ("vae_decoder", "decoder", CHUNK),
    ],
)
def test_networks_without_weights_cost_what_the_graphs_do(
    nano: Mapping[str, Work], graph: str, part: str, frames: int
) -> None:
    sizes = {"n": frames, "T": frames, "H": HEIGHT, "W": WIDTH, "h": HEIGHT // 8, "w": WIDTH // 8}
    flops = sum(cost.flops for cost in count_graph(BUNDLED / f"{graph}.onnx", sizes)) / frames
    if graph == "clip_encoder":  # which resizes by two products as well
        flops -= 2 * 3 * 224 * HEIGHT * WIDTH + 2 * 3 * 224 * 224 * WIDTH
    assert nano[part].flops == pytest.approx(flops, rel=0.01)


def test_products_and_what_is_between_them_are_told_apart() -> None:
    def call() -> None:
        x = torch.empty(2, 3, 4, device="meta")
        (x.flatten(0, 1) @ torch.empty(4, 5, device="meta")).t().relu()
        nn.functional.scaled_dot_product_attention(x, x, x)

    work = count(call)
    assert work.products == [Cost(2 * 6 * 4 * 5, 4 * (24 + 20 + 30)), Cost(2 * 2 * 3 * 3 * (4 + 4), 4 * 4 * 24)]
    assert work.other_bytes == 4 * 2 * 30  # relu alone: the others are views


def test_a_limit_is_the_sum_of_its_parts() -> None:
    """Of one frame: arithmetic decides the first part, traffic all others."""
    parts = {name: Work([Cost(10**9, 10**6)], 10**7) for name in ("clip", "decoder", "encoder", "encoder_tf32")}
    parts["unet"] = Work([Cost(10**12, 10**6)], 10**9)
    gpu = Gpu(half=100 / REACHED_OPERATIONS, tf32=50 / REACHED_OPERATIONS, bandwidth=1000 / REACHED_TRAFFIC)
    evaluations = 5 * 110 / 85
    fused, loose = milliseconds(parts, gpu, "euler", "fp16")
    assert fused == pytest.approx(evaluations * 10 + 3 * 0.01)
    assert loose == pytest.approx(evaluations * (10 + 1) + 3 * (0.01 + 0.01))
    assert milliseconds(parts, gpu, "euler", "tf32")[0] == pytest.approx(fused + 0.01)


def test_the_record_is_of_these_samplers_and_gpus() -> None:
    record = json.loads((RESULTS / "limits.json").read_text(encoding="utf-8"))
    again = "run python -m bench.speed.limits and python -m bench.speed.readme_table"
    assert set(record["evaluations_per_frame"]) == set(SAMPLERS), again
    assert {row["gpu"] for row in record["rows"]} == set(GPUS) >= set(CALCULATED_FOR), again
    assert all(0 < fused < loose for fused, loose in (row["ms_per_frame"] for row in record["rows"]))
