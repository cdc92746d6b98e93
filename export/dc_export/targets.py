"""What graphs are exported for. Nothing here needs PyTorch, so that a mistyped option is said at once."""

from __future__ import annotations

from dc_export.profiles import load_profile
from dc_rt.engine import Profile
from dc_rt.errors import UserError

PRECISIONS = ("fp32", "fp16")
TARGETS = {"onnx": ("fp32", "large"), "tensorrt": ("fp16", "any")}  # and the precision and profile of each by default


def choose_settings(target: str, precision: str | None, profile: str | None, low_memory: bool) -> tuple[str, Profile]:
    """The precision and the sizes to export for: the target's own unless given.

    Raises:
        UserError: there is no such target, precision or profile, or the target has no low-memory form.
    """
    if target not in TARGETS:
        raise UserError(f"There is no target {target!r}; choose one of {', '.join(TARGETS)}.")
    if low_memory and target != "tensorrt":
        raise UserError("Only graphs for TensorRT come in a low-memory form; add --target tensorrt.")
    default_precision, widest = TARGETS[target]
    precision = precision or default_precision
    if precision not in PRECISIONS:
        raise UserError(f"There is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    return precision, load_profile(profile or widest)
