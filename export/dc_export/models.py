"""What is meant by a model on the command line: one of the names below, a folder, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dc_rt.errors import UserError
from depthcrafter.source import DEFAULT_BASE, DEFAULT_UNET

MODELS = {
    "depthcrafter": (DEFAULT_BASE, DEFAULT_UNET),
    "nano": ("nano", "nano"),
    "random-full": ("random:full", "random:full"),
    "random-tiny": ("random:tiny", "random:tiny"),
}
"""Base and UNet of the models that have a name."""


@dataclass(frozen=True)
class Origins:
    """Where base and UNet of a model come from, and its name where it is not to be that of the UNet."""

    base: str
    unet: str
    name: str | None


def find_origins(model: str, base: str | None = None) -> Origins:
    """Where a model comes from.

    Args:
        model: a name of `MODELS`; a folder or a single file of a UNet, or one that has a base and beside it `unet`, as
            `dc-export checkpoint` writes it; or the hub id of a UNet.
        base: in the place of the model's own; Stable Video Diffusion of the hub for what has none.

    Raises:
        UserError: it is none of these.
    """
    if model in MODELS:
        own_base, unet = MODELS[model]
        return Origins(base or own_base, unet, model)
    path = Path(model)
    if path.is_dir() and (path / "vae").is_dir() and (path / "unet").is_dir():
        return Origins(base or model, str(path / "unet"), path.resolve().name)
    if path.exists() or model.startswith(("random:", "http")) or model.count("/") == 1:
        return Origins(base or DEFAULT_BASE, model, None)
    raise UserError(
        f"There is no model {model!r}; choose one of {', '.join(MODELS)}, or give a folder or the hub id of a UNet."
    )
