"""The output `-` while the model runs, where the range is known beforehand: each frame goes out once it is spooled.

In a thread of its own, from the first frame on, whatever an earlier run has written: a reader that is slow holds up the
stream, and not the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import repeat
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.depth import normalised
from dc_rt.job.plan import Plan
from dc_rt.job.results import upsampler_of
from dc_rt.job.spool import Spool
from dc_rt.job.writers import result_of
from dc_rt.media import read_at_sizes
from dc_rt.media.results import NO_IMAGE, ResultFrame
from dc_rt.media.stream import StreamWriter
from dc_rt.options import Outputs

_ANY_RANGE = (0.0, 1.0)  # of outputs that take raw values
_POLL_SECONDS = 0.1


class LiveStream:
    """A context manager: once it is left, it takes no more frames, and nobody waits for its reader but `finish`."""

    def __init__(self, spool: Spool, plan: Plan, outputs: Outputs, stream: BinaryIO) -> None:
        """Begins with what is spooled already. `plan` is of the video as it is read in this run."""
        self._spool, self._plan, self._outputs, self._stream = spool, plan.followed, outputs, stream
        self._changed = threading.Condition()
        self._num_frames = spool.num_frames
        self._has_ended = False
        self._error: BaseException | None = None
        # Where its reader takes nothing more, nothing can end it: it must not keep the process.
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def tell(self, num_frames: int) -> None:
        """So many frames are spooled by now; raises what writing one before raised."""
        self._spool.flush()
        with self._changed:
            self._num_frames = num_frames
            self._changed.notify_all()
        if self._error:
            raise self._error

    def finish(self, check: Callable[[], None]) -> None:
        """All frames are spooled: wait until they are written; raises what writing one raised, or `check` raises."""
        self._end()
        while self._thread.is_alive():
            check()
            self._thread.join(_POLL_SECONDS)
        if self._error:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _wait_for(self, index: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._num_frames > index or self._has_ended)
            return self._num_frames > index

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # raised where the run is told of frames
            self._error = error

    def _write(self) -> None:
        plan, size = self._plan, self._plan.result_size(self._outputs)
        upsample = upsampler_of(plan, self._outputs)
        depth_range = self._outputs.fixed_range or _ANY_RANGE
        with ExitStack() as stack:
            guides: Iterator[tuple[int, list[NDArray[np.uint8]]]] = repeat((0, [NO_IMAGE]))
            if upsample.takes_guide:
                read = read_at_sizes(plan.video, [size], plan.stride, plan.limit)
                guides = stack.enter_context(closing(read))
            result = result_of(plan, self._outputs, plan.num_frames, stream=self._stream)
            writer = stack.enter_context(StreamWriter(self._stream, result))
            depths = self._spool.frames_as_they_come(self._wait_for)
            for index, (model_raw, (_, (image,))) in enumerate(zip(depths, guides, strict=False)):
                raw = upsample(model_raw, image if upsample.takes_guide else None)
                depth = normalised(raw, depth_range)
                # A stream says nothing of times.
                writer.write(ResultFrame(index, index, Fraction(0), model_raw, raw, depth, image))
