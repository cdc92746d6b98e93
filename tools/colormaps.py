"""Writes the tables of colour maps that the runtime has in the place of matplotlib: `python tools/colormaps.py`.

matplotlib's inferno is CC0, turbo (A. Mikhailov, Google) and ColorBrewer's Spectral are Apache-2.0. Spectral is
reversed, as depth viewers have it: near is red.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "runtime" / "dc_rt" / "media"
MATPLOTLIB_NAMES = {"inferno": "inferno", "turbo": "turbo", "spectral": "Spectral_r"}


def table(name: str) -> np.ndarray:
    """uint8 [256,3], dark or blue first."""
    return np.asarray(matplotlib.colormaps[MATPLOTLIB_NAMES[name]](np.arange(256))[:, :3] * 255).astype(np.uint8)


if __name__ == "__main__":
    for name in MATPLOTLIB_NAMES:
        np.save(FOLDER / f"{name}.npy", table(name))
