"""What graphs are exported for. Nothing here needs PyTorch, so that a mistyped option is said at once."""

from __future__ import annotations

from dc_export.profiles import load_profile
from dc_rt.engine import Profile
from dc_rt.errors import UserError
from dc_rt.gpu import Card

PRECISIONS = ("fp32", "fp16")
TARGETS = {"onnx": ("fp32", "large"), "tensorrt": ("fp16", "any")}  # and the precision and profile of each by default


# A window of 110 frames of the largest of film's shapes takes 26 GB without slices, by the cost of memory of the real
# network: 13.1 GB at 1024x576, and 4 GB for weights and for what goes in and out.
PLAIN_CARD_BYTES = 40e9


def choose_settings(
    target: str, precision: str | None, profile: str | None, low_memory: bool, plain: bool = False
) -> tuple[str, Profile]:
    """The precision and the sizes to export for: the target's own unless given.

    Raises:
        UserError: there is no such target, precision or profile, or the target has no such form.
    """
    if target not in TARGETS:
        raise UserError(f"There is no target {target!r}; choose one of {', '.join(TARGETS)}.")
    if low_memory and target != "tensorrt":
        raise UserError("Only graphs for TensorRT come in a low-memory form; add --target tensorrt.")
    if plain and target != "tensorrt":
        raise UserError("Graphs for ONNX Runtime have no slices to be without; leave --plain out.")
    if low_memory and plain:
        raise UserError("--low-memory adds slices, and --plain takes them out; give one of them.")
    default_precision, widest = TARGETS[target]
    precision = precision or default_precision
    if precision not in PRECISIONS:
        raise UserError(f"There is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    return precision, load_profile(profile or widest)


def is_plain_best(card: Card | None, low_memory: bool, portable: bool) -> bool:
    """Whether graphs without slices are the ones for a card: where there is memory, and for no other cards."""
    return card is not None and card.total_bytes >= PLAIN_CARD_BYTES and not low_memory and not portable
