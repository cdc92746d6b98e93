"""The node "Load Depth Frames": a few frames of a result as images, with all of the bits that were written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management as host
import folder_paths
import numpy as np
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from dc_rt.errors import UserError, option
from dc_rt.stored import Stored, open_stored

from . import schemas
from .choices import in_the_nodes_words
from .places import stamp
from .running import NodeError, of_the_disk

T = TypeVar("T")

# 256 frames of 1024x576 are 1.8 GB as images.
_MOST_FRAMES = 256


class LoadDepthFrames(io.ComfyNode):
    """Reads from disk; no model is needed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A bounded range of frames."""
        return schemas.load_depth_frames(
            [
                io.String.Input("record", default="", tooltip="NAME.json, as Depth of a Video gives it."),
                io.Int.Input(
                    "start", default=0, min=0, max=2**31 - 1, tooltip="The first frame; 0 is the video's first."
                ),
                io.Int.Input(
                    "count", default=16, min=1, max=_MOST_FRAMES, tooltip="How many frames, or as many as there are."
                ),
                io.Boolean.Input("with_pictures", default=False, tooltip="Also give the video's own frames."),
            ],
            "A range of a result's frames as images and masks, from the most exact file that was written: save_npz, "
            "save_exr, save_png, or the depth video.",
        )

    @classmethod
    def fingerprint_inputs(cls, record: str | None = "", **inputs: Any) -> Any:
        """A result that was written again is read again."""
        return stamp(_path_of(record)) if record else None

    @classmethod
    def execute(cls, record: str, start: int, count: int, with_pictures: bool) -> io.NodeOutput:
        """Read them."""
        try:
            return _read(record, start, count, with_pictures)
        except UserError as error:
            raise NodeError(in_the_nodes_words(error)) from None
        except OSError as error:
            raise NodeError(of_the_disk(error)) from None


def _read(record: str, start: int, count: int, with_pictures: bool) -> io.NodeOutput:
    if not record.strip():
        raise UserError(f"There is no {option('record')}; connect the one of Depth of a Video, or give a NAME.json.")
    stored = open_stored(_path_of(record))
    last = min(start + count, stored.num_frames)
    if start >= last:
        raise UserError(
            f"{option('start', start)} is beyond the {stored.num_frames} frames of {stored.path}; start earlier."
        )
    depth = _filled(stored.depth(), torch.empty((last - start, stored.height, stored.width)), start)
    pictures: Any = ExecutionBlocker("Load Depth Frames has pictures where with_pictures is on; switch it on.")
    if with_pictures:
        pictures = _pictures(stored, start, last)
    return io.NodeOutput(
        depth.unsqueeze(-1).expand(-1, -1, -1, 3), depth, pictures, stored.num_frames, stored.depth_error
    )


def _pictures(stored: Stored, start: int, last: int) -> torch.Tensor:
    shape = last - start, stored.height, stored.width, 3
    frames = (picture.astype(np.float32) / np.float32(255) for picture in stored.images())
    return _filled(frames, torch.empty(shape), start)


def _filled(frames: Iterator[Any], batch: torch.Tensor, start: int) -> torch.Tensor:
    """The batch, filled from the frames after the first `start`; an interrupt ends it within a frame."""
    last = start + len(batch)
    bar = ProgressBar(last)
    for number, frame in enumerate(islice(frames, last)):
        host.throw_exception_if_processing_interrupted()
        if number >= start:
            batch[number - start] = torch.from_numpy(frame)
        bar.update_absolute(number + 1)
    return batch


def _path_of(record: str) -> Path:
    return Path(folder_paths.get_annotated_filepath(record.strip(), folder_paths.get_output_directory()))
