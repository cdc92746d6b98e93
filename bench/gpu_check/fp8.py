"""Linear layers in float8 (e4m3), as far as it takes to time them: nothing is calibrated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOAT8 = torch.float8_e4m3fn
LARGEST: float = torch.finfo(FLOAT8).max


class Float8Linear(nn.Module):
    """A linear layer whose weights and inputs are rounded to float8, each scaled as a whole to its largest value."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).to(FLOAT8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] to [...,out], in the dtype of `x`."""
        flat = x.flatten(0, -2)
        scale = _scale(flat)
        product: Tensor = torch._scaled_mm(
            (flat / scale).to(FLOAT8), self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=x.dtype
        )
        product = product if self.bias is None else product + self.bias
        return product.unflatten(0, x.shape[:-1])


def _scale(x: Tensor) -> Tensor:
    return (x.abs().amax().float() / LARGEST).clamp(min=1e-12)


def to_float8(model: nn.Module) -> int:
    """Put float8 in the place of all linear layers that the kernels take, whose sides are multiples of 16; how many."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child.in_features % 16 == child.out_features % 16 == 0:
                setattr(module, name, Float8Linear(child))
                count += 1
    return count
