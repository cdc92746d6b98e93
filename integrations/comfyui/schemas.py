"""What both nodes are, whether dc-rt is installed or not, so that workflows stay whole without it."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "DepthCrafter-RT"


def depth_of_video(inputs: list[io.Input], description: str) -> io.Schema:
    """The schema of "Depth of a Video", with these inputs."""
    return io.Schema(
        node_id="DepthCrafterRT_DepthOfVideo",
        display_name="DepthCrafter-RT: Depth of a Video",
        category=CATEGORY,
        description=description,
        inputs=inputs,
        outputs=[
            _output(io.Video, "depth", "Depth in grey: white is near."),
            _output(io.Video, "colours", "Depth in colours."),
            _output(io.Image, "preview", "A few frames of the colours, evenly spread over the video."),
            _output(io.String, "record", "Path of NAME.json, for Load Depth Frames."),
            _output(io.String, "files", "Paths of all that was written, a line each."),
        ],
        is_output_node=True,
    )


def load_depth_frames(inputs: list[io.Input], description: str) -> io.Schema:
    """The schema of "Load Depth Frames", with these inputs."""
    return io.Schema(
        node_id="DepthCrafterRT_LoadDepthFrames",
        display_name="DepthCrafter-RT: Load Depth Frames",
        category=CATEGORY,
        description=description,
        inputs=inputs,
        outputs=[
            _output(io.Image, "depth", "Depth in grey, [N,H,W,3] from 0 to 1: large is near."),
            _output(io.Mask, "mask", "The same as a mask, [N,H,W]."),
            _output(io.Image, "pictures", "The video's own frames at the size of the depth, if asked for."),
            _output(io.Int, "num_frames", "How many frames the result has in all."),
            _output(io.Float, "depth_error", "How far the stored numbers may be from the depth by their bits."),
        ],
    )


def _output(kind: type[io.ComfyTypeIO], name: str, tooltip: str) -> io.Output:
    return kind.Output(name, display_name=name, tooltip=tooltip)
