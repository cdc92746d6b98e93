"""Depth as it is written: in which sense large is near, and along which curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dc_rt.media.results import ResultFrame
from dc_rt.options import Outputs


def shown_values(frame: ResultFrame, outputs: Outputs, preset: str = "near-white") -> NDArray[np.float32]:
    """Depth of a frame with the values, the polarity and the gamma that are asked for: float32 [H,W].

    Far-white is exactly 1 - near-white. `preset` is the polarity where none is asked for.
    """
    depth = frame.raw if outputs.values == "raw" else frame.depth
    if outputs.gamma != 1:
        depth = np.power(np.maximum(depth, 0), np.float32(1 / outputs.gamma))
    polarity = preset if outputs.polarity == "preset" else outputs.polarity
    return 1 - depth if polarity == "far-white" else depth
