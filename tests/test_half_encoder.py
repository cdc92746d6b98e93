"""The VAE encoder in half precision: exact where it is scaled, near where it is rounded, whatever the picture."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D

from dc_export.extremes import extremes
from dc_export.half_encoder import LARGEST, Largest, Scaling, as_picture, choose_scaling, encode, prepare_half, scale
from dc_rt.errors import UserError
from depthcrafter.checkpoint import load_vae
from depthcrafter.nano.scenes import make_clip
from depthcrafter.source import find_checkpoint

SIZE = (64, 96)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLTemporalDecoder:
    """Nano's, in float32."""
    base = find_checkpoint("nano", "nano", [("vae", "fp32")]).base.path
    return load_vae(base, torch.float32)


@pytest.fixture(scope="module")
def pictures() -> list[torch.Tensor]:
    scenes = [make_clip(seed, 1, *SIZE).frames for seed in range(32)]
    return [as_picture(frames[:1]) for frames in (*extremes(*SIZE).values(), *scenes)]


def inflated(vae: AutoencoderKLTemporalDecoder, exponent: int) -> AutoencoderKLTemporalDecoder:
    """The same function, of values that are larger: as the real checkpoint's, which overflow."""
    larger = copy.deepcopy(vae)
    scale(larger.encoder, Scaling(-exponent, -exponent))
    return larger


@pytest.mark.parametrize("scaling", [Scaling(4, 0), Scaling(0, 3), Scaling(8, 8), Scaling(-12, -12)])
def test_the_scaled_encoder_is_bit_identical_in_float32(vae, pictures, scaling) -> None:
    expected, largest = encode(vae.encoder, pictures)
    scaled = copy.deepcopy(vae)
    scale(scaled.encoder, scaling)
    actual, smaller = encode(scaled.encoder, pictures)
    assert torch.equal(actual, expected)
    assert smaller.stream == largest.stream * 2.0**-scaling.stream
    assert smaller.hidden == largest.hidden * 2.0**-scaling.hidden


@pytest.fixture(scope="module")
def noisy(pictures) -> list[torch.Tensor]:
    """As the pipeline gives them."""
    generator = torch.Generator().manual_seed(0)
    return [picture + 0.02 * torch.randn(picture.shape, generator=generator) for picture in pictures]


@pytest.mark.parametrize("exponent", [0, 12])
def test_half_precision_is_as_near_as_its_rounding_however_large_the_stream(vae, noisy, exponent) -> None:
    """Next to the noise, which moves latents by a fortieth of their size, what rounding does is small."""
    expected = latents(vae, noisy)
    half = inflated(vae, exponent)
    if exponent:
        plain, _ = encode(copy.deepcopy(half.encoder).half(), [picture.half() for picture in noisy])
        assert not plain.isfinite().all(), "this stream does not overflow, so that nothing is shown"
    scaling = prepare_half(half)
    assert scaling["stream"] >= exponent - 12
    errors = (latents(half, noisy) - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    scenes = errors[-32:]
    assert scenes.median() < 1e-3, errors
    assert errors.max() < 2.5e-3, errors
    _, largest = encode(half.encoder, noisy)
    assert max(largest.stream, largest.hidden) < 2 * LARGEST


def latents(vae: AutoencoderKLTemporalDecoder, pictures: list[torch.Tensor]) -> torch.Tensor:
    """The mode of the posterior, float32 [n,4,h,w]."""
    moments, _ = encode(vae.encoder, pictures)
    with torch.no_grad():
        return vae.quant_conv(moments)[:, :4].float()


def test_the_least_scaling_is_chosen() -> None:
    assert choose_scaling(Largest(LARGEST / 2, 0.0)) == Scaling(0, 0)
    assert choose_scaling(Largest(LARGEST * 3, LARGEST * 1.5)) == Scaling(2, 1)
    with pytest.raises(UserError, match="not finite"):
        choose_scaling(Largest(float("nan"), 1.0))


def test_every_part_of_an_encoder_is_one_that_is_known(vae) -> None:
    """Another kind of layer might write to the stream unseen."""
    known = (ResnetBlock2D, Attention, Downsample2D)
    parts = [
        part
        for block in (*vae.encoder.down_blocks, vae.encoder.mid_block)
        for parts in block.children()
        for part in (parts if isinstance(parts, torch.nn.ModuleList) else [parts])
    ]
    assert len(parts) > 8
    assert all(isinstance(part, known) for part in parts)


def test_an_encoder_of_another_make_is_refused(vae) -> None:
    class Doubled(torch.nn.Module):
        """Reads the stream without a normalization."""

        def __init__(self, block: torch.nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
            return self.block(x, *arguments, **named) + x.square()

    other = inflated(vae, 12)
    other.encoder.mid_block.resnets[0] = Doubled(other.encoder.mid_block.resnets[0])
    with pytest.raises(UserError, match="gives other latents than as it was"):
        prepare_half(other)
