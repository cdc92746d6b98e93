"""The VAE encoder in half precision, exactly: its values are made smaller by powers of two, and nothing else changes.

As it is it overflows float16. Every group normalization divides by the size of what it is given, so that this may be of
any size if the normalization's epsilon goes with it:

    norm(k x; k^2 epsilon) = norm(x; epsilon)

The encoder is a residual stream from `conv_in` to `conv_norm_out` that blocks read through a normalization and add to.
What is written to the stream is written times k, and its readers' epsilons are times k^2. Within a residual block
`conv1` is read by `norm2` alone, with a factor of its own. With powers of two the result in float32 is the same, bit
for bit, which `prepare_half` checks; the powers are chosen on pictures at the extremes of what there is.

A picture's noise is a fiftieth of its range, and half precision would round it by 2 %: the first layer takes pictures
as the sum of two numbers in half precision, which together have 22 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Encoder
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from torch import Tensor, nn

from dc_export.extremes import extremes
from dc_rt.errors import UserError

# Below float16's largest, 65504, by a factor of 16, for pictures that are worse than those that are tried. Small values
# lose nothing by it, as float16 has 14 powers of two below 1.
LARGEST = 4096.0
TRIED_SIZE = (128, 192)


@dataclass(frozen=True)
class Scaling:
    """By which power of two values are made smaller: 2 to the minus `stream`, and within blocks minus `hidden`."""

    stream: int = 0
    hidden: int = 0


@dataclass
class Largest:
    """The largest absolute values that there were in the residual stream, and within the blocks."""

    stream: float = 0.0
    hidden: float = 0.0


def prepare_half(vae: AutoencoderKLTemporalDecoder) -> dict[str, int]:
    """Bring a VAE's encoder to float16, scaled so that nothing overflows; in place.

    Args:
        vae: in float32; its decoder is not touched.

    Returns:
        The fields of the `Scaling`, for the manifest.

    Raises:
        UserError: the scaled encoder gives other latents in float32, or its values are too large even so: it is not
            built as this module knows it, or its weights are not those of an encoder.
    """
    pictures = [as_picture(frames[:1]) for frames in extremes(*TRIED_SIZE).values()]
    expected, largest = encode(vae.encoder, pictures)
    scaling = choose_scaling(largest)
    scale(vae.encoder, scaling)
    actual, largest = encode(vae.encoder, pictures)
    if not torch.equal(actual, expected):
        raise UserError(
            "The VAE encoder, scaled for half precision, gives other latents than as it was: it is not built as this "
            "version knows it; install the versions that constraints.txt has, or export with --precision fp32."
        )
    vae.encoder.half()
    vae.encoder.conv_in = InTwoHalves(vae.encoder.conv_in)
    vae.quant_conv.half()
    return asdict(scaling)


class InTwoHalves(nn.Module):
    """A convolution in float16 that takes float32, [n,C,H,W], as the sum of two numbers of float16."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        twice = nn.Conv2d(
            2 * convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,
            convolution.stride,
            convolution.padding,
        ).to(convolution.weight)
        with torch.no_grad():
            twice.weight.copy_(convolution.weight.repeat(1, 2, 1, 1))
            twice.bias.copy_(convolution.bias)
        self.convolution = twice

    def forward(self, x: Tensor) -> Tensor:
        high = x.half()
        low = (x - high.float()).half()
        convolved: Tensor = self.convolution(torch.cat([high, low], dim=1))
        return convolved


def choose_scaling(largest: Largest) -> Scaling:
    """The least that brings such values to `LARGEST` or below; raises `UserError` for what is not finite."""
    values = asdict(largest)
    if not all(map(math.isfinite, values.values())):
        raise UserError("The VAE encoder gives values that are not finite; check the checkpoint's VAE.")
    return Scaling(**{name: max(math.frexp(value / LARGEST)[1], 0) for name, value in values.items()})


@torch.no_grad()
def scale(encoder: Encoder, scaling: Scaling) -> None:
    """Make the values of the residual stream and within blocks smaller, and nothing else different; in place."""
    stream, hidden = 2.0**-scaling.stream, 2.0**-scaling.hidden
    _multiply(encoder.conv_in, stream)
    encoder.conv_norm_out.eps *= stream**2
    for module in encoder.modules():
        if isinstance(module, ResnetBlock2D):
            module.norm1.eps *= stream**2
            _multiply(module.conv1, hidden)
            module.norm2.eps *= hidden**2
            _multiply(module.conv2, stream)
            if module.conv_shortcut is not None:
                _multiply_bias(module.conv_shortcut, stream)
        elif isinstance(module, Attention):
            module.group_norm.eps *= stream**2
            _multiply(module.to_out[0], stream)
        elif isinstance(module, Downsample2D):
            _multiply_bias(module.conv, stream)


@torch.no_grad()
def encode(encoder: Encoder, pictures: Sequence[Tensor]) -> tuple[Tensor, Largest]:
    """What an encoder gives for pictures, float32 [n,3,H,W] each, and the largest values that there were on the way."""
    largest = Largest()

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            value = float(output.abs().max())
            # What is not a number is never the larger of two.
            setattr(largest, name, value if math.isnan(value) else max(getattr(largest, name), value))

        return hook

    # What is added to the stream is looked at too: a sum may be smaller than what it is of.
    watched = [(encoder.conv_in, "stream")]
    for module in encoder.modules():
        if isinstance(module, ResnetBlock2D):
            watched += [(module.conv1, "hidden"), (module.conv2, "stream")]
        if isinstance(module, ResnetBlock2D | Attention | Downsample2D):
            watched.append((module, "stream"))
    with ExitStack() as hooks:
        for module, name in watched:
            hooks.callback(module.register_forward_hook(note(name)).remove)
        return torch.cat([encoder(picture) for picture in pictures]), largest


def as_picture(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 [n,H,W,3] as the encoder takes it, float32 [n,3,H,W] in [-1,1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def _multiply(layer: nn.Module, factor: float) -> None:
    layer.weight.mul_(factor)
    _multiply_bias(layer, factor)


def _multiply_bias(layer: nn.Module, factor: float) -> None:
    """Of what carries the stream on: its input is scaled already."""
    if layer.bias is not None:
        layer.bias.mul_(factor)
