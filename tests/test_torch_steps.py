"""The reference sped up step by step gives the reference's depth, and what cannot be had is said in a sentence."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from bench.records import RESULTS
from bench.speed.readme_table import replaced
from bench.speed.torch_steps import DOCS, MARKERS, NAME, render, variants
from command_helpers import dc_rt
from dc_rt import DepthCrafter, Sampling, Source, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import plan_video
from dc_rt.job.fingerprint import differences, fingerprint
from dc_rt.sampler import SAMPLERS
from dc_rt.torch_steps import TORCH_STEPS, check_torch_steps
from depthcrafter import DepthCrafterPipeline, load_pipeline
from depthcrafter.attention import OneKernel
from depthcrafter.collapse import SingleKeyAttention
from depthcrafter.fast import STEPS, GraphedForward, compiled_parts, speed_up
from media_helpers import moving_gradient, write_clip

# Of latents and of depth, in float32: the mean that backends may differ by, and a tenth of their largest difference.
MEAN, LARGEST = 1e-5, 1e-4
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which these work")


def outcome(pipeline: DepthCrafterPipeline) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """What the UNet, and the VAE's decoder, make of a few noisy frames."""
    device = pipeline._execution_device
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 3, 4, 8, 16), (1, 3, 4, 8, 16), (1, 3, pipeline.unet.config.cross_attention_dim)
    noisy, image, embeddings = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    denoised = pipeline.denoise(noisy, 1.0, image, embeddings)
    return [made.cpu().numpy() for made in (denoised, pipeline.decode(denoised[0]))]


def check_alike(pipeline: DepthCrafterPipeline, expected: DepthCrafterPipeline) -> None:
    """Latents and depth of both, of order 1, differ by the rounding of float32 alone."""
    for found, plain in zip(outcome(pipeline), outcome(expected), strict=True):
        assert plain.std() > 0.01
        difference = np.abs(found - plain)
        print(f"mean {difference.mean():.1e}, max {difference.max():.1e}")
        assert difference.mean() <= MEAN
        assert difference.max() <= LARGEST


@pytest.fixture(scope="module")
def plain(checkpoint: tuple[Path, Path]) -> DepthCrafterPipeline:
    return load_pipeline(*checkpoint)


@pytest.mark.parametrize("steps", [["collapsed"], ["channels_last"], ["channels_last", "collapsed"]])
def test_steps_change_the_order_of_sums_alone(
    checkpoint: tuple[Path, Path], plain: DepthCrafterPipeline, steps: list[str]
) -> None:
    pipeline = load_pipeline(*checkpoint)
    speed_up(pipeline, steps)
    collapsed = [layer for layer in pipeline.unet.modules() if isinstance(layer, SingleKeyAttention)]
    assert len(collapsed) == (20 if "collapsed" in steps else 0)
    convolutions = [
        layer for layer in (*pipeline.unet.modules(), *pipeline.vae.modules()) if isinstance(layer, torch.nn.Conv3d)
    ]
    innermost = [layer.weight.is_contiguous(memory_format=torch.channels_last_3d) for layer in convolutions]
    assert all(innermost) == ("channels_last" in steps)
    check_alike(pipeline, plain)


def test_the_temporal_convolutions_take_the_layout_without_a_copy() -> None:
    """What `channels_last` rests on: frames with the channels innermost are a volume of that layout."""
    frames = torch.zeros(5, 8, 3, 4).to(memory_format=torch.channels_last)
    volume = frames.reshape(1, 5, 8, 3, 4).permute(0, 2, 1, 3, 4)  # as diffusers has it
    assert volume.data_ptr() == frames.data_ptr()
    assert volume.is_contiguous(memory_format=torch.channels_last_3d)


def test_compiled_networks_are_compiled(
    checkpoint: tuple[Path, Path], plain: DepthCrafterPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a compiler that notes what it is given and leaves it as it is: the real one takes minutes."""
    graphs: list[torch.fx.GraphModule] = []

    def note(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_with(function, backend=note))
    pipeline = load_pipeline(*checkpoint)
    own = [part.forward for part in compiled_parts(pipeline)]
    speed_up(pipeline, ["compile"])
    assert all(part.forward != before for part, before in zip(compiled_parts(pipeline), own, strict=True))
    assert graphs == []
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pipeline.decode(latents), plain.decode(latents), atol=LARGEST)
    assert sum(node.op == "call_function" for graph in graphs for node in graph.graph.nodes) > 20


@WITHOUT_GPU
def test_graphs_of_a_gpu_are_refused_before_anything_is_changed(checkpoint: tuple[Path, Path]) -> None:
    pipeline = load_pipeline(*checkpoint)
    with pytest.raises(UserError, match=r"torch_steps='cuda-graph' cannot be used, as PyTorch sees no CUDA device"):
        speed_up(pipeline, ["collapsed", "cuda-graph"])
    assert not any(isinstance(layer, SingleKeyAttention) for layer in pipeline.unet.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_recorded_kernels_give_what_they_gave(checkpoint: tuple[Path, Path]) -> None:
    pipeline = load_pipeline(*checkpoint, device="cuda")
    speed_up(pipeline, ["cuda-graph"])
    assert isinstance(pipeline.unet.forward, GraphedForward)
    check_alike(pipeline, load_pipeline(*checkpoint, device="cuda"))


@pytest.mark.soak
def test_flash_attention_is_the_only_kernel_of_the_unet(
    checkpoint: tuple[Path, Path], plain: DepthCrafterPipeline
) -> None:
    pipeline = load_pipeline(*checkpoint, attention="flash")
    kinds = [{type(each) for each in part.attn_processors.values()} for part in (pipeline.unet, pipeline.vae)]
    assert kinds == [{OneKernel}, {AttnProcessor2_0}]
    check_alike(pipeline, plain)


@WITHOUT_GPU
def test_the_kernel_of_cudnn_is_one_sentence_on_a_processor(checkpoint: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"kernel cudnn cannot compute .* device cpu; use attention='sdpa'\.") as caught:
        load_pipeline(*checkpoint, attention="cudnn")
    assert "\n" not in str(caught.value)


def test_names_are_one_table() -> None:
    assert list(STEPS) == list(TORCH_STEPS)
    assert check_torch_steps(["compile", "collapsed", "compile"]) == ("collapsed", "compile")
    with pytest.raises(UserError, match=r"no torch_steps='quick'; choose of collapsed, "):
        check_torch_steps(["quick"])


def test_they_are_of_pytorch_without_an_offload_alone() -> None:
    with pytest.raises(
        UserError, match=r"torch_steps='collapsed' is of PyTorch, and the backend is onnx; use backend="
    ):
        DepthCrafter.load(BUNDLED, "onnx", torch_steps=["collapsed"])
    with pytest.raises(UserError, match=r"torch_steps='collapsed' needs .* use cpu_offload='none'"):
        DepthCrafter.load(BUNDLED, "torch", cpu_offload="model", torch_steps=["collapsed"])


def test_the_command_line_takes_them_and_the_record_tells_them() -> None:
    clip = write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24))
    command = ("infer", clip, "--num-denoising-steps", 1, "--torch-steps", "channels_last,collapsed")
    refused = dc_rt(*command)
    assert refused.returncode == 1
    assert "use --backend torch, or leave --torch-steps out" in " ".join(refused.stderr.split())
    done = dc_rt(*command, "--backend", "torch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(", steps collapsed, channels_last")
    record = json.loads(Path("demo_output/clip.json").read_text())
    assert record["engines"]["device"].endswith(", steps collapsed, channels_last")


def test_a_run_is_resumed_with_the_steps_that_it_was_begun_with() -> None:
    plan = plan_video(write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24)), Source())
    models = [DepthCrafter.load(BUNDLED, "torch", torch_steps=steps) for steps in ((), ("collapsed",))]
    plain, collapsed = (fingerprint(model.engines, plan, Sampling()) for model in models)
    assert differences(plain, collapsed) == {"backend": ("torch", "torch, steps collapsed")}


def test_every_step_is_measured_or_said_why_not() -> None:
    rows, absent = variants("euler")
    assert rows[0][1:] == ("sdpa", (), "euler")
    for name in TORCH_STEPS:
        assert (f"+ {name}" in [row.title for row in rows]) != (name in absent)
    assert {row.sampler for row in rows} == set(SAMPLERS)


def test_the_table_in_the_documentation_is_of_the_record() -> None:
    record = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
    page = DOCS.read_text(encoding="utf-8")
    assert replaced(page, render(record), MARKERS) == page
