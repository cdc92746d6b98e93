"""A few frames of a video, wherever they are in it, without reading all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def spread(num_frames: int, count: int) -> list[int]:
    """Indices of `count` frames, or of all if there are fewer, evenly spread from the first to the last."""
    return sorted({round(index) for index in np.linspace(0, num_frames - 1, min(count, num_frames))})


def frames_near(video: Path, times: Sequence[float]) -> NDArray[np.uint8]:
    """The frames that are shown at these times, in seconds from the first: [N,H,W,3].

    Only what lies between a key frame and a frame is decoded.
    """
    found = []
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        start = stream.start_time or 0
        for time in times:
            wanted = start + round(time / stream.time_base)
            container.seek(wanted, stream=stream)
            frame = None
            for decoded in container.decode(stream):
                if frame is not None and decoded.pts is not None and decoded.pts > wanted:
                    break
                frame = decoded
            if frame is not None:
                found.append(frame.to_ndarray(format="rgb24"))
    return np.stack(found)
