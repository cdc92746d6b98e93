"""Which models are no substitute for the real weights: the one that comes with the runtime, and random ones."""

from __future__ import annotations

from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import Manifest
from dc_rt.errors import UserError

_RANDOM = "random:"  # how the origin of random weights begins (see `depthcrafter.source`)


def what_it_demonstrates(manifest: Manifest) -> str:
    """In a sentence, what a model is good for where it is a demonstration; empty for any other."""
    if manifest.model.unet.startswith(_RANDOM):
        return f"{manifest.model.name} has random weights: it shows that engines run, and its depth means nothing."
    if _is_bundled(manifest):
        return (
            f"{manifest.model.name} is a demonstration: it knows rooms of simple shapes, and is no substitute for "
            "DepthCrafter's weights (`make engines`)."
        )
    return ""


def _is_bundled(manifest: Manifest) -> bool:
    """Whether a set has the weights of the bundled one, whatever its name, precision and place."""
    try:
        bundled = Manifest.read(BUNDLED)
    except UserError:
        return False
    return manifest.weights is not None and manifest.weights == bundled.weights
