"""Make docs/stereo_sheet.png: a procedural room with its exact depth, and what each mode of stereo makes of it.

    python -m bench.pictures.stereo

The depth is exact, so that what is seen is stereo's doing. Disparity is 4 % of the width, twice the default: more is to
be seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.records import pyplot
from dc_rt.media.colormap import to_uint8
from dc_rt.media.stereo import StereoWarper, anaglyph, halved
from depthcrafter.nano.scenes import make_clip

SHEET = Path(__file__).parents[2] / "docs" / "stereo_sheet.png"
SEED, HEIGHT, WIDTH = 7, 288, 512
DISPARITY, CONVERGENCE = 4.0, 0.5
MARKED = (255, 0, 255)
COLUMNS = 3

Picture = NDArray[np.uint8]


def pictures() -> dict[str, Picture]:
    """By caption, in the order of the sheet."""
    clip = make_clip(SEED, 1, HEIGHT, WIDTH)
    image, depth = clip.frames[0], clip.disparity[0]
    with StereoWarper(DISPARITY, CONVERGENCE) as warper:
        left, right = warper(image, depth)
    grey = np.repeat(to_uint8(depth)[..., None], 3, axis=-1)
    holes = left.image.copy()
    holes[left.holes] = MARKED
    return {
        "the source": image,
        "its depth": grey,
        "left view, holes marked": holes,
        "left+right: left": left.image,
        "left+right: right": right.image,
        "anaglyph": anaglyph(left.image, right.image),
        "sbs": np.hstack([left.image, right.image]),
        "half-sbs": np.hstack([halved(left.image), halved(right.image)]),
        "rgbd": np.hstack([image, grey]),
    }


def main() -> None:
    """Draw the sheet."""
    plt = pyplot()
    found = pictures()
    rows = -(-len(found) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(13, 7.4), layout="constrained")
    for axis, (caption, picture) in zip(axes.flat, found.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(caption, fontsize=10)
        axis.set_axis_off()
    figure.savefig(SHEET, dpi=110)
    print(SHEET)


if __name__ == "__main__":
    main()
