"""What goes into each of the four graphs and what comes out, by which one is told from another.

A manifest's hashes say that a file is whole, not that it is the graph under whose name it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dc_rt.engine.manifest import Model
from dc_rt.errors import UserError

# Axes by what they are: a number where it is fixed, C the width of embeddings, L the channels of latents, else lengths.
INPUTS = {
    "clip_encoder": {"frames": "n H W 3", "resize_rows": "224 H", "resize_cols": "224 W"},
    "vae_encoder": {"frames": "n H W 3", "noise": "n 3 H W"},
    "denoiser": {"noisy": "1 T L h w", "sigma": "", "image_latents": "1 T L h w", "embeddings": "1 T C"},
    "vae_decoder": {"latents": "n L h w"},
}
OUTPUTS = {
    "clip_encoder": {"embeddings": "n C"},
    "vae_encoder": {"image_latents": "n L h w"},
    "denoiser": {"denoised": "1 T L h w"},
    "vae_decoder": {"depth": "n H W"},
}

Shapes = Mapping[str, Sequence[int | str | None]]
"""Names of tensors and their axes; what is no positive number is an axis that varies."""


def check_signature(path: Path, graph: str, model: Model, inputs: Shapes, outputs: Shapes) -> None:
    """Raise `UserError` unless a file that was opened as `graph` has that graph's inputs and output."""
    fixed = {"C": model.embedding_dim, "L": model.latent_channels}
    for found, expected in ((inputs, INPUTS[graph]), (outputs, OUTPUTS[graph])):
        if set(found) != set(expected) or any(len(found[name]) != len(expected[name].split()) for name in expected):
            raise UserError(
                f"{path} is not the {graph} that its manifest calls it: it takes {_listed(inputs)} and gives "
                f"{_listed(outputs)}, not {', '.join(INPUTS[graph])} and {', '.join(OUTPUTS[graph])}; export the "
                "engine set again (dc-export onnx)."
            )
        for name, axes in expected.items():
            for axis, size in zip(axes.split(), found[name], strict=True):
                wanted = fixed.get(axis) or (int(axis) if axis.isdigit() else None)
                if wanted and isinstance(size, int) and size > 0 and size != wanted:
                    raise UserError(
                        f"{path} is not of this engine set: its {name} have an axis of {size} where the set's have "
                        f"{wanted}; export the engine set again (dc-export onnx)."
                    )


def _listed(shapes: Shapes) -> str:
    names = [f"{name} of {len(axes)} axes" for name, axes in shapes.items()]
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "") if names else "nothing"
