"""What a person chooses, and the command that it comes to. Knows nothing of Blender."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from .errors import Problem

SAMPLERS = ("euler", "trimmed")
SIZES = ("model", "source")
EXR_TYPES = ("float", "half")


@dataclass(frozen=True)
class Choices:
    """Of a run; the defaults are those of `dc-rt infer`, but for the first frame, which is 1 in Blender.

    Attributes:
        video: its absolute path, or a pattern of a sequence's; what is no video is said by dc-rt.
        save_folder: where results go, absolute; "" for the folder `depth` beside the video.
        engines: folder of the engine set; "" for the one that dc-rt finds.
        max_res, steps, sampler, window_size, overlap, seed, target_fps, process_length, size, exr_type: as of dc-rt.
        first_frame: the scene's frame of the video's first one, which is the number of its file too.
        videos: also write the depth as videos, grey and in colours.
        restart: throw away what an unfinished run did.
        overwrite: replace files that dc-rt did not write.
        more: more options, as they are typed.
    """

    video: str
    save_folder: str = ""
    engines: str = ""
    max_res: int = 1024
    steps: int = 5
    sampler: str = SAMPLERS[0]
    window_size: int = 110
    overlap: int = 25
    seed: int = 42
    target_fps: float = -1.0
    process_length: int = -1
    size: str = SIZES[0]
    exr_type: str = EXR_TYPES[0]
    first_frame: int = 1
    videos: bool = False
    restart: bool = False
    overwrite: bool = False
    more: str = ""

    def arguments(self) -> list[str]:
        """What follows `dc-rt`.

        Raises:
            Problem: no video is chosen, or `more` has a quote that is not closed.
        """
        if not self.video:
            raise Problem("No video is chosen; choose one.")
        values = {
            "--save-folder": self.save_folder or str(Path(self.video).parent / "depth"),
            "--max-res": self.max_res,
            "--num-denoising-steps": self.steps,
            "--sampler": self.sampler,
            "--window-size": self.window_size,
            "--overlap": self.overlap,
            "--seed": self.seed,
            "--target-fps": self.target_fps,
            "--process-length": self.process_length,
            "--size": self.size,
            "--exr-type": self.exr_type,
            # A lone Z, or a layer's, is no picture to Blender's image textures.
            "--exr": "rgb",
            "--start-number": self.first_frame,
            "--outputs": ",".join((*(("depth.mp4", "vis.mp4") if self.videos else ()), "input.mp4", "exr")),
        }
        if self.engines:
            values["--engines"] = self.engines
        given = [each for flag, value in values.items() for each in (flag, str(value))]
        flags = {"--restart": self.restart, "--overwrite": self.overwrite}
        given += [flag for flag, is_on in flags.items() if is_on]
        # Behind "--" a name is a name, whatever it begins with.
        return ["infer", *given, *self._more(), "--events", "jsonl", "--", self.video]

    def _more(self) -> list[str]:
        try:
            return shlex.split(self.more)
        except ValueError as error:
            raise Problem(f"The additional options cannot be read ({error}); close the quote.") from error
