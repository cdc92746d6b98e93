"""Make the example clips, and their true disparity, from seeds that training never sees.

python examples/make_examples.py examples

NAME.mp4 is the clip; NAME_disparity.mkv its disparity, normalised over the clip, larger is nearer, as lossless H.264 in
10-bit grey: a value of 1023 is 1. `true_disparity` of `show.py` reads it.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from dc_rt.media import VideoWriter
from depthcrafter.nano.scenes import FRAMES_PER_SECOND, make_clip

# Name, seed, frames, height, width, whether the camera stands still.
EXAMPLES = [
    ("demo", 335, 60, 192, 320, False),
    ("balls", 308, 32, 128, 192, False),
    ("still", 344, 32, 128, 192, True),
]
FPS = Fraction(round(FRAMES_PER_SECOND))


def write_disparity(path: Path, disparity: NDArray[np.float32]) -> None:
    """Write [T,H,W] in [0,1] as 10-bit grey, without loss."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"qp": "0", "preset": "veryslow"})
        stream.height, stream.width = disparity.shape[1:]
        stream.pix_fmt = "gray10le"
        for image in np.round(disparity * 1023).astype(np.uint16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray10le")))
        container.mux(stream.encode())


def main(folder: Path) -> None:
    """Write all of them to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, num_frames, height, width, still in EXAMPLES:
        clip = make_clip(seed, num_frames, height, width, static_camera=still)
        with VideoWriter(folder / f"{name}.mp4", FPS, height, width) as video:
            for frame in clip.frames:
                video.write(frame)
        write_disparity(folder / f"{name}_disparity.mkv", clip.disparity)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
