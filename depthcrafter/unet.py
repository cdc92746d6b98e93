"""The UNet of DepthCrafter: Stable Video Diffusion's, with an image embedding for every frame."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionOutput


class DepthCrafterUNet(UNetSpatioTemporalConditionModel):
    """`UNetSpatioTemporalConditionModel` in which every frame attends to its own CLIP embedding.

    Stable Video Diffusion repeats one embedding, that of its single input image, over all frames; DepthCrafter
    (Hu et al., "DepthCrafter: Generating Consistent Long Depth Sequences for Open-world Videos", CVPR 2025)
    conditions frame t on the embedding of frame t. Nothing else differs, so the weights' names are the same.
    """

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        added_time_ids: torch.Tensor,
        return_dict: bool = True,
    ) -> UNetSpatioTemporalConditionOutput | tuple[torch.Tensor]:
        """Predict v.

        Args:
            sample: [B,T,8,h,w], the scaled noisy latents and after them the image latents; h and w multiples of 8.
            timestep: scalar, log(sigma) / 4.
            encoder_hidden_states: [B,T,C], one embedding a frame.
            added_time_ids: [B,3], frames per second, motion bucket and strength of the noise augmentation.
            return_dict: whether to wrap the result, as diffusers' models do.

        Returns:
            v, [B,T,4,h,w], in the dtype of the weights.
        """
        dtype = self.conv_in.weight.dtype
        batch, frames = sample.shape[:2]
        temb = self._time_embedding(timestep, added_time_ids, batch, dtype).repeat_interleave(frames, dim=0)
        context = encoder_hidden_states.flatten(0, 1).unsqueeze(1)  # [B*T,1,C]
        # All zeros: every frame belongs to a video, none is a lone image.
        image_only_indicator = torch.zeros(batch, frames, dtype=dtype, device=sample.device)

        def conditions(block: torch.nn.Module) -> dict[str, Any]:
            attends = getattr(block, "has_cross_attention", False)
            shared = {"temb": temb, "image_only_indicator": image_only_indicator}
            return shared | {"encoder_hidden_states": context} if attends else shared

        x = self.conv_in(sample.flatten(0, 1).to(dtype))
        skips = (x,)
        for block in self.down_blocks:
            x, residuals = block(x, **conditions(block))
            skips += residuals
        x = self.mid_block(x, temb=temb, encoder_hidden_states=context, image_only_indicator=image_only_indicator)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, residuals = skips[:-count], skips[-count:]
            x = block(x, res_hidden_states_tuple=residuals, **conditions(block))
        x = self.conv_out(self.conv_act(self.conv_norm_out(x)))

        v = x.unflatten(0, (batch, frames))
        return UNetSpatioTemporalConditionOutput(sample=v) if return_dict else (v,)

    def _time_embedding(
        self, timestep: torch.Tensor | float, added_time_ids: torch.Tensor, batch: int, dtype: torch.dtype
    ) -> torch.Tensor:
        """[B,C]: the embedding of the noise level plus that of the added time ids."""
        timestep = torch.as_tensor(timestep, device=added_time_ids.device).reshape(-1).expand(batch)
        noise_level = self.time_embedding(self.time_proj(timestep).to(dtype))
        time_ids = self.add_time_proj(added_time_ids.flatten()).reshape(batch, -1)
        return noise_level + self.add_embedding(time_ids.to(dtype))
