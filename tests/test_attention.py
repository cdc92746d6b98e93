"""Every way to compute attention gives what PyTorch's own kernels give, and is found where it can be had."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from bench.speed.backends import BACKENDS, EAGER
from command_helpers import dc_rt
from dc_rt import DepthCrafter, Sampling, Source, UserError
from dc_rt.attention import ATTENTIONS, DEFAULT_ATTENTION
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import plan_video
from dc_rt.job.fingerprint import differences, fingerprint
from depthcrafter import DepthCrafterPipeline, load_pipeline
from install_helpers import install_into, with_path, write_wheel
from media_helpers import moving_gradient, write_clip

# Of depth, in float32, whose sums are taken in another order: a tenth of what backends may differ by.
MEAN, LARGEST = 1e-6, 1e-4

# What stands for xformers where there is no GPU: its function, by the formula, for the tensors that diffusers gives it.
FORMULA = """
import torch

calls = []

def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None):
    assert query.is_contiguous() and key.is_contiguous() and value.is_contiguous()
    assert query.ndim == key.ndim == value.ndim == 3 and attn_bias is None and p == 0
    calls.append((tuple(query.shape), tuple(key.shape)))
    scores = torch.einsum("bqc,bkc->bqk", query.double(), key.double()) * (scale or query.shape[-1] ** -0.5)
    return torch.einsum("bqk,bkc->bqc", scores.softmax(-1), value.double()).to(query.dtype)
"""

COMPARE = """
import json, sys
import numpy as np
from diffusers.models.attention_processor import Attention
from depthcrafter import load_pipeline
from xformers import ops

base, unet, frames = sys.argv[1], sys.argv[2], np.load(sys.argv[3])
depths = []
for attention in ("sdpa", "xformers"):
    pipeline = load_pipeline(base, unet, attention=attention)
    ops.calls.clear()
    depths.append(pipeline(frames, steps=2, window_size=4, overlap=2))
    if attention == "sdpa":
        assert ops.calls == []
networks = pipeline.unet, pipeline.vae
unet, vae = ([layer for layer in network.modules() if isinstance(layer, Attention)] for network in networks)
print(json.dumps({
    "processors": sorted({type(layer.processor).__name__ for layer in (*unet, *vae)}),
    "unet": len(unet),
    "calls": len(ops.calls),
    "single keys": sum(key[1] == 1 for _, key in ops.calls),
    "mean": float(np.abs(depths[0] - depths[1]).mean()),
    "largest": float(np.abs(depths[0] - depths[1]).max()),
    "spread": float(depths[0].std()),
}))
"""


def frames() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """As many as two windows of 4 have that share 2."""
    return np.random.default_rng(0).integers(0, 256, (6, 128, 64, 3), dtype=np.uint8)


def layers(pipeline: DepthCrafterPipeline) -> list[Attention]:
    networks = (pipeline.unet, pipeline.vae)
    return [layer for network in networks for layer in network.modules() if isinstance(layer, Attention)]


@pytest.mark.parametrize("model", ["tiny", "nano"])
def test_products_written_out_give_what_the_kernels_give(model: str, checkpoint: tuple[Path, Path]) -> None:
    origin = checkpoint if model == "tiny" else ("nano", "nano")
    kernels, products = (load_pipeline(*origin, attention=name) for name in ("sdpa", "math"))
    assert {type(layer.processor) for layer in layers(kernels)} == {AttnProcessor2_0}
    assert {type(layer.processor) for layer in layers(products)} == {AttnProcessor}
    expected, found = (pipeline(frames(), steps=2, window_size=4, overlap=2) for pipeline in (kernels, products))
    assert expected.std() > 0.01
    difference = np.abs(found - expected)
    print(f"{model}: mean {difference.mean():.1e}, max {difference.max():.1e}")
    assert difference.mean() <= MEAN
    assert difference.max() <= LARGEST


def test_xformers_computes_every_layer_of_the_unet_and_the_vae(checkpoint: tuple[Path, Path], tmp_path: Path) -> None:
    """Of a stand-in by the formula, as xformers runs on no CPU: what it is given, and what becomes of its result."""
    wheel = write_wheel(tmp_path, "xformers", "0.0.35", {"xformers/__init__.py": "", "xformers/ops.py": FORMULA})
    install_into(tmp_path / "installed", wheel)
    np.save(tmp_path / "frames.npy", frames())
    command = [sys.executable, "-c", COMPARE, *map(str, (*checkpoint, tmp_path / "frames.npy"))]
    environment = with_path(tmp_path / "installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    print(said)
    assert said["processors"] == ["XFormersAttnProcessor"]
    assert said["spread"] > 0.01
    assert said["mean"] <= MEAN
    assert said["largest"] <= LARGEST
    # Two windows of two steps in the UNet, and a chunk in the VAE's encoder; so small a decoder's blocks use none.
    assert said["calls"] == 4 * said["unet"] + 1
    assert said["single keys"] == 4 * said["unet"] / 2  # the cross-attentions: one key a frame


@pytest.mark.skipif(torch.cuda.is_available(), reason="xformers works on a GPU")
def test_xformers_that_cannot_run_here_is_one_sentence(checkpoint: tuple[Path, Path]) -> None:
    """Whether it is installed or not."""
    with pytest.raises(UserError, match=r"xformers cannot .*use attention='sdpa'") as caught:
        load_pipeline(*checkpoint, attention="xformers")
    assert "\n" not in str(caught.value)


def test_xformers_has_kernels_for_the_real_networks() -> None:
    """As far as it can be told without a GPU: by size and type of their heads."""
    pytest.importorskip("xformers.ops", reason="xformers is not installed: it comes with the extra xformers")
    from xformers.ops.fmha import cutlass, flash

    def takes(kernel: Any, size: int, dtype: torch.dtype) -> bool:
        return dtype in kernel.FwOp.SUPPORTED_DTYPES and not kernel.FwOp.shape_not_supported_reasons(8, 8, size, size)

    assert takes(flash, 64, torch.float16)  # the UNet's
    assert not takes(flash, 512, torch.float16)  # the VAE's, for which there is one that is slower
    assert all(takes(cutlass, size, dtype) for size in (64, 512) for dtype in (torch.float16, torch.float32))


def test_the_command_line_and_python_take_it_for_the_torch_backend() -> None:
    clip = write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24))
    done = dc_rt("infer", clip, "--backend", "torch", "--attention", "math", "--num-denoising-steps", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("attention by math")
    record = json.loads(Path("demo_output/clip.json").read_text())
    assert record["engines"]["device"].endswith("attention by math")


def test_a_run_is_resumed_with_the_attention_that_it_was_begun_with() -> None:
    plan = plan_video(write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24)), Source())
    ways: tuple[str | None, ...] = (None, "sdpa", "math")
    models = [DepthCrafter.load(BUNDLED, "torch", attention=name) for name in ways]
    plain, default, math = (fingerprint(model.engines, plan, Sampling()) for model in models)
    assert plain == default
    assert differences(plain, math) == {"backend": ("torch", "torch, attention by math")}


def test_the_doctor_says_which_there_are() -> None:
    done = dc_rt("doctor", environment={"COLUMNS": "400"})
    (line,) = (line for line in done.stdout.splitlines() if line.split()[1:2] == ["torch"])
    assert "--attention: sdpa" in line
    assert "math" in line
    if "+cpu" in version("torch"):
        assert "--attention xformers: xformers " in line


def test_every_way_is_a_column_of_the_benchmarks() -> None:
    assert BACKENDS[EAGER].missing(BUNDLED) is None
    for name in ATTENTIONS:
        assert (name in BACKENDS) == (name != DEFAULT_ATTENTION)
    assert BACKENDS["math"].missing(BUNDLED) is None
    engines = BACKENDS["math"].load(BUNDLED)
    assert engines("vae_decoder", latents=np.zeros((1, 4, 8, 8), np.float32)).shape == (1, 64, 64)
