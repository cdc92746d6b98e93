"""Depth as it is written: in which sense large is near, and along which curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dc_rt.media.colormap import to_uint8, to_uint16
from dc_rt.options import Outputs

if TYPE_CHECKING:
    from dc_rt.media.results import ResultFrame

FAR_WHITE, NEAR_WHITE = "far-white", "near-white"


def shown_values(frame: ResultFrame, outputs: Outputs, preset: str = NEAR_WHITE) -> NDArray[np.float32]:
    """Depth of a frame with the values, the polarity and the gamma that are asked for: float32 [H,W].

    Far-white is exactly 1 - near-white. `preset` is the polarity where none is asked for.
    """
    near = _near_white(frame, outputs)
    return 1 - near if _is_far_white(outputs, preset) else near


def shown_range(raw: tuple[float, float], outputs: Outputs, preset: str = NEAR_WHITE) -> tuple[float, float]:
    """What the ends of a range of raw depth become in `shown_values`; infinity beyond what float32 holds."""
    with np.errstate(over="ignore"):
        first, last = map(float, _curved(np.array(raw, np.float32), outputs))
    return (1 - first, 1 - last) if _is_far_white(outputs, preset) else (first, last)


def shown_uint16(frame: ResultFrame, outputs: Outputs) -> NDArray[np.uint16]:
    """The same as grey of 16 bits: round(65535 * near-white), and far-white is exactly 65535 - that."""
    near = to_uint16(_near_white(frame, outputs))
    return np.uint16(65535) - near if _is_far_white(outputs, NEAR_WHITE) else near


def shown_uint8(frame: ResultFrame, outputs: Outputs) -> NDArray[np.uint8]:
    """The same as grey of 8 bits (`to_uint8`), and far-white is exactly 255 - near-white."""
    near = to_uint8(_near_white(frame, outputs))
    return np.uint8(255) - near if _is_far_white(outputs, NEAR_WHITE) else near


def _near_white(frame: ResultFrame, outputs: Outputs) -> NDArray[np.float32]:
    return _curved(frame.raw if outputs.values == "raw" else frame.depth, outputs)


def _curved(depth: NDArray[np.float32], outputs: Outputs) -> NDArray[np.float32]:
    return depth if outputs.gamma == 1 else np.power(np.maximum(depth, 0), np.float32(1 / outputs.gamma))


def _is_far_white(outputs: Outputs, preset: str) -> bool:
    return (preset if outputs.polarity == "preset" else outputs.polarity) == FAR_WHITE
