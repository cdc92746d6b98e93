"""One block of the UNet at level 0, a residual and a transformer one: the ways to run it, in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench.gpu_check.models import Sizes
from bench.gpu_check.rows import Row
from bench.gpu_check.timing import Work, check_float8, rows_of

EAGER = "eager"


def measure(sizes: Sizes) -> Iterator[Row]:
    """A row a way, in the longest window; of each how far its output is from the first one's."""
    import torch
    from torch import nn

    from bench.gpu_check.fp8 import to_float8
    from bench.gpu_check.networks import compiled, half, normal, random_unet, to_channels_last
    from dc_export.graphs import collapse_cross_attention

    unet = random_unet(sizes.config)
    level = unet.down_blocks[0]
    block = nn.ModuleList([level.resnets[0], level.attentions[0]])
    channels, context_dim = unet.config.block_out_channels[0], unet.config.cross_attention_dim
    temb_dim = unet.time_embedding.linear_2.out_features
    del unet, level
    frames, h, w = sizes.windows[0], sizes.height // 8, sizes.width // 8
    x, temb, context = normal(frames, channels, h, w), normal(frames, temb_dim), normal(frames, 1, context_dim)
    image_only = torch.zeros((1, frames), device=x.device, dtype=half())

    class Block(nn.Module):
        """Both, one after the other."""

        def __init__(self, parts: nn.ModuleList) -> None:
            super().__init__()
            self.resnet, self.attention = parts

        def forward(self, x: torch.Tensor) -> Any:
            x = self.resnet(x, temb, image_only_indicator=image_only)
            return self.attention(x, context, image_only_indicator=image_only, return_dict=False)[0]

    outputs: dict[str, torch.Tensor] = {}

    def way(name: str, collapse: bool, last: bool, float8: bool, compile_it: bool) -> Work:
        parts = copy.deepcopy(block)
        if collapse:
            collapse_cross_attention(parts)
        if float8:
            check_float8()
            to_float8(parts)
        if last:
            to_channels_last(parts)
        given = x.to(memory_format=torch.channels_last) if last else x
        model = compiled(Block(parts)) if compile_it else Block(parts)

        def work() -> None:
            with torch.inference_mode():
                outputs[name] = model(given)

        return work

    #       collapsed attn2, channels_last, float8, compiled
    ways = {
        EAGER: (False, False, False, False),
        "eager, collapsed": (True, False, False, False),
        "eager, collapsed, channels_last": (True, True, False, False),
        "eager, collapsed, fp8": (True, False, True, False),
        "compiled, collapsed": (True, False, False, True),
        "compiled, collapsed, channels_last": (True, True, False, True),
        "compiled, collapsed, fp8": (True, False, True, True),
    }
    works: dict[str, Callable[[], Work]] = {name: partial(way, name, *settings) for name, settings in ways.items()}
    size = f"{frames} frames of {w}x{h}, {channels} channels"

    def note(name: str) -> str:
        if name == EAGER or EAGER not in outputs:
            return size
        expected = outputs[EAGER].float()
        distance = (outputs[name].float() - expected).abs().mean() / expected.abs().mean()
        return f"{size}; {distance.item():.1e} from {EAGER}"

    yield from rows_of(works, sizes.seconds, "block", lambda times: f"{times.median:.3g} ms", note)
