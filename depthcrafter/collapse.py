"""Cross-attention of the UNet, which sees a single key, as what it comes to: for the exported graphs and `fast`."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


def collapse_cross_attention(unet: nn.Module) -> None:
    """Replace every `attn2`, each of which sees one key, by its value and output projections. Exact."""
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock | TemporalBasicTransformerBlock):
            temporal = isinstance(module, TemporalBasicTransformerBlock)
            module.attn2 = SingleKeyAttention(module.attn2, shared=temporal)


class SingleKeyAttention(nn.Module):
    """Cross-attention to a single key: softmax over one element is 1, so the query never matters."""

    def __init__(self, attention: Attention, shared: bool) -> None:
        """`shared`: all rows of the context are one (temporal blocks: the first frame's embedding), so one will do."""
        super().__init__()
        self.to_v = attention.to_v
        self.to_out = attention.to_out
        self.shared = shared

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """[B,1,C], to be broadcast over the tokens of `hidden_states` [B,tokens,C]."""
        context = encoder_hidden_states[:1] if self.shared else encoder_hidden_states
        projected: Tensor = self.to_out[0](self.to_v(context))
        return projected
