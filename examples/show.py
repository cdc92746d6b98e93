"""Put a result beside its input: a video and a contact sheet.

python examples/show.py demo_output/demo [examples/demo_disparity.mkv]

Reads NAME_input.mp4 and NAME_vis.mp4 of a run; writes NAME_side_by_side.mp4 and NAME_sheet.png. Given the true
disparity, it is shown too, in the same colours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from dc_rt.media import VideoWriter, inferno, probe, read_frames

COLUMNS = 5


def true_disparity(path: Path) -> Iterator[NDArray[np.float32]]:
    """Frames of a NAME_disparity.mkv: float32 [H,W] in [0,1]."""
    with av.open(path) as container:
        for frame in container.decode(video=0):
            # Decoders give grey H.264 with chroma planes below, which are empty.
            yield frame.to_ndarray()[: frame.height].astype(np.float32) / 1023


def main(stem: str, truth: str | None = None) -> None:
    """Write both pictures of the run whose files begin with `stem`."""
    source = probe(f"{stem}_input.mp4")
    videos = [read_frames(f"{stem}_{kind}.mp4", source.height, source.width) for kind in ("input", "vis")]
    if truth:
        videos.append(inferno(disparity) for disparity in true_disparity(Path(truth)))
    frames = [np.concatenate(images, axis=1) for images in zip(*videos, strict=True)]
    with VideoWriter(f"{stem}_side_by_side.mp4", source.fps, *frames[0].shape[:2]) as video:
        for frame in frames:
            video.write(frame)
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]
    # Rows are input, depth and truth; columns go with time.
    sheet = np.concatenate([np.concatenate(np.split(frame, len(videos), axis=1)) for frame in chosen], axis=1)
    write_png(Path(f"{stem}_sheet.png"), sheet)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H,W,3]."""
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1)
    packets = encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"))
    path.write_bytes(b"".join(bytes(packet) for packet in [*packets, *encoder.encode()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
