"""The node "Depth of a Video": path in, paths out; frames never pass through ComfyUI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import comfy.model_management as host
import folder_paths
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import Input, InputImpl, io, ui

from dc_rt.errors import UserError, option
from dc_rt.job import JobCancelled, Task
from dc_rt.models import ModelOptions
from dc_rt.options import Options

from . import choices, schemas
from .pictures import frames_near, spread
from .places import result_name, results_folder, stamp, subfolder, written
from .running import NodeError, Workplace, of_the_disk
from .videos import file_of
from .widgets import as_inputs

_FOLDER = "depth"
_PREVIEWS, _MOST_PREVIEWS = 4, 16
_WORKPLACE = Workplace()


class DepthOfVideo(io.ComfyNode):
    """Runs dc-rt in a process of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Its inputs are derived from dc-rt's options."""
        return schemas.depth_of_video(
            [
                io.Video.Input("video", optional=True, tooltip="From Load Video; or give a path below."),
                io.String.Input(
                    "video_path",
                    default="",
                    optional=True,
                    tooltip="If no video is connected: a video file, a folder of images, or a sequence such as "
                    "shot.%04d.exr; a relative one is in ComfyUI's input folder.",
                ),
                io.String.Input(
                    "folder", default=_FOLDER, tooltip="Where results go, under ComfyUI's output folder.", optional=True
                ),
                *as_inputs(choices.widgets()),
                io.String.Input(
                    choices.MORE,
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Any other option of dc-rt (docs/options.md), as name=value, a line each.",
                ),
                io.Boolean.Input(
                    "keep_model", default=False, optional=True, tooltip="Keep the model open for the next prompt."
                ),
                io.Boolean.Input(
                    "unload_others",
                    default=True,
                    optional=True,
                    tooltip="Have ComfyUI unload its own models from the GPU before.",
                ),
                io.Int.Input(
                    "previews",
                    default=_PREVIEWS,
                    min=1,
                    max=_MOST_PREVIEWS,
                    optional=True,
                    tooltip="Frames in preview.",
                ),
            ],
            "Consistent depth of a whole video, from file to file, in memory that its length does not change. An "
            "interrupted run is resumed by the next prompt.",
        )

    @classmethod
    def fingerprint_inputs(cls, video_path: str | None = "", **inputs: Any) -> Any:
        """A video that was changed is run again; what is connected ComfyUI watches itself."""
        return stamp(_path_of(video_path)) if video_path else None

    @classmethod
    def execute(
        cls,
        video: Input.Video | None = None,
        video_path: str = "",
        folder: str = _FOLDER,
        keep_model: bool = False,
        unload_others: bool = True,
        previews: int = _PREVIEWS,
        **inputs: Any,
    ) -> io.NodeOutput:
        """Run it, or find that it was run."""
        output = Path(folder_paths.get_output_directory())
        try:
            options, models = choices.options_of(inputs), choices.models_of(inputs)
            task = _task(_source(video, video_path), results_folder(output, folder), options, models)
        except UserError as error:
            raise NodeError(choices.in_the_nodes_words(error)) from None
        except OSError as error:
            raise NodeError(of_the_disk(error)) from None
        if unload_others:
            host.unload_all_models()
            host.soft_empty_cache()
        try:
            # The bar raises too where the prompt was interrupted: the process is killed then, and resumed all the same.
            tell = ProgressBar(1).update_absolute
            files = _WORKPLACE.run(task, models, keep_model, tell, host.processing_interrupted)
        except JobCancelled:
            host.throw_exception_if_processing_interrupted()
            raise NodeError("The run was cancelled; queueing the prompt again resumes it.") from None
        return _outputs(files, output, previews)


def _source(video: Input.Video | None, path: str) -> Path:
    if video is not None:
        return file_of(video, Path(folder_paths.get_temp_directory()))
    if not path.strip():
        raise UserError(f"There is no video; connect one, or give its path in {option('video_path')}.")
    return _path_of(path)


def _path_of(typed: str) -> Path:
    """A path as it was typed; a relative one is in ComfyUI's input folder, or where its "[output]" says."""
    at_home = os.path.expanduser(typed.strip())  # noqa: PTH111 - pathlib's raises where there is no such user
    return Path(folder_paths.get_annotated_filepath(at_home))


def _task(video: Path, folder: Path, options: Options, models: ModelOptions) -> Task:
    named = Options.by_name({"result_name": result_name(video, options, models.engines)}, options)
    return Task(str(video), str(folder), named, skip_done=True)


def _outputs(files: list[Path], output: Path, previews: int) -> io.NodeOutput:
    depth, colours, record = written(files, "_depth"), written(files, "_vis"), files[-1]
    times = json.loads(record.read_bytes())["times"]
    frames = frames_near(colours, [times[index] for index in spread(len(times), previews)])
    shown = ui.PreviewVideo([ui.SavedResult(colours.name, subfolder(colours, output), io.FolderType.output)])
    return io.NodeOutput(
        InputImpl.VideoFromFile(str(depth)),
        InputImpl.VideoFromFile(str(colours)),
        torch.from_numpy(frames).float() / 255,
        str(record),
        "\n".join(sorted(map(str, files))),
        ui=shown,
    )
