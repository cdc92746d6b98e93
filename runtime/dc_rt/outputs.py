"""What a run can write: one row an output. Everything else, from flags to disk space, is derived from these.

Any package can add one: `name = "module:row"` in its entry-point group `dc_rt.outputs`, the row an `Output`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

from dc_rt.errors import UserError, option
from dc_rt.formats import CONTAINERS, VIDEO_CODECS, container_for, exr_bytes_per_pixel

if TYPE_CHECKING:
    from dc_rt.media.results import OpenWriter

PLUGINS = "dc_rt.outputs"
STREAM = "-"
"""The name of the output that is standard output."""
FEWEST_DIGITS = 4
"""Of the numbers of frames in their files' names."""
_FRAME = re.compile(rf"frame_\d{{{FEWEST_DIGITS},}}")
RAW, RAW_SUFFIX = "raw", ".raw.zarr.zip"
"""Name and suffix of the output that all others can be made from (`dc_rt.media.raw`)."""


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        name: what `outputs` takes.
        suffix: of the file, after the video's name: `_depth.mp4`; of each frame's, with `is_frames`: `.exr`.
        help: what is written, in a phrase.
        bytes_per_pixel: at most, in all its files, but for headers.
        bytes_of: the same with given options, where they decide it.
        writer: "module:function" of what opens it, a `dc_rt.media.results.OpenWriter`: imported when it is used, so
            that listing outputs waits for no library.
        flag: an option of the command line's that adds it to the default ones, if there is one.
        is_default: whether it is written unless other outputs are asked for.
        kind: "file"; "frames", a file a frame in a folder that is called as the video is, named by `frame_name`: by
            that a later run knows them; "folder", a folder of a layout of its own, `NAME` and the suffix; "stream",
            standard output, and no file.
        layout: of such a folder: patterns of its files, as `pathlib` has them. By these a later run knows them; the
            last is the one that tells of the others.
        codec: of a video: a key of `dc_rt.formats.VIDEO_CODECS`, or the option that chooses one. Its file is of a
            container that holds it and its sound, and its suffix is that container's.
        beside: how many pictures of the results' size one of a video's is wide.
        beside_of: the same with given options, where they decide it.
        by: the option that chooses another suffix, if there is one.
        suffixes: those that its values choose, several where several files are written.
        takes_only_text: whether its library takes no names that are no text, as file systems do.
        needs: what of a frame is only read where it is asked for: "source", "audio".
        takes_depth: whether it takes depth of a frame, or its range; if not, it may be written while the model runs.
        cuts_values: whether it holds the values that are asked for, as far as these are from 0 to 1.
        takes_image: whether it takes the source's frame; if no output does, the video is not read again.
    """

    name: str
    suffix: str
    help: str
    bytes_per_pixel: float
    writer: str
    flag: str | None = None
    is_default: bool = False
    kind: Literal["file", "frames", "folder", "stream"] = "file"
    layout: tuple[str, ...] = ()
    codec: str = ""
    bytes_of: Callable[[Mapping[str, Any]], float] | None = None
    beside: int = 1
    beside_of: Callable[[Mapping[str, Any]], int] | None = None
    by: str = ""
    suffixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    takes_only_text: bool = False
    needs: frozenset[str] = frozenset()
    takes_depth: bool = True
    cuts_values: bool = False
    takes_image: bool = True

    @property
    def is_frames(self) -> bool:
        """Whether it is a file a frame."""
        return self.kind == "frames"

    @property
    def path(self) -> str:
        """Where it is written, as it is shown to people."""
        if self.kind == "stream":
            return "standard output"
        if self.is_frames:
            return f"NAME/{frame_name(0, self.suffix)}"
        return f"NAME{self.suffix}{'/' if self.kind == 'folder' else ''}"

    @property
    def files(self) -> tuple[str, ...]:
        """Suffixes of all files, or of the folder, that it is written to: the chosen one's, if `chosen` chose."""
        stem, dot, container = self.suffix.rpartition(".") if self.codec else (self.suffix, "", "")
        for each in self.suffixes.values():
            if self.codec and each[0].rpartition(".")[0] == stem:
                return tuple(f"{suffix.rpartition('.')[0]}{dot}{container}" for suffix in each)
            if each[0] == self.suffix:
                return each
        return (self.suffix,)

    @property
    def ever(self) -> frozenset[str]:
        """Suffixes of all files that it is ever written to, whatever is chosen."""
        all_of_it = (self.suffix, *(suffix for each in self.suffixes.values() for suffix in each))
        if not self.codec:
            return frozenset(all_of_it)
        return frozenset(f"{each.rpartition('.')[0]}.{container}" for each in all_of_it for container in CONTAINERS)

    def chosen(self, options: Mapping[str, Any], sound: str | None = None) -> Output:
        """The same as these options ask for it.

        Args:
            options: by name.
            sound: FFmpeg's name of the codec of the source's sound; None where it has none, or no output copies it.
        """
        suffixes = self.suffixes.get(str(options.get(self.by)))
        row = replace(self, suffix=suffixes[0]) if suffixes else self
        if row.bytes_of:
            row = replace(row, bytes_per_pixel=row.bytes_of(options))
        if row.beside_of:
            row = replace(row, beside=row.beside_of(options))
        if not row.codec:
            return row
        needs = row.needs | {"audio"} if sound and options.get("audio") else row.needs
        codec = row.codec_of(options)
        suffix = f"{row.suffix.rpartition('.')[0]}.{container_for(codec, sound if 'audio' in needs else None)}"
        return replace(row, suffix=suffix, needs=needs, codec=codec)

    def codec_of(self, options: Mapping[str, Any]) -> str:
        """The codec of a video with these options."""
        return self.codec if self.codec in VIDEO_CODECS else str(options[self.codec])

    def copies_sound(self, options: Mapping[str, Any]) -> bool:
        """Whether the source's sound is asked for."""
        return "audio" in self.needs or bool(self.codec and options.get("audio"))

    @property
    def is_early(self) -> bool:
        """Whether it can be written while the model runs: it is a file of what is there by then."""
        return self.kind == "file" and not (self.takes_depth or self.needs)

    def open_writer(self) -> OpenWriter:
        """What opens its writer."""
        module, _, function = self.writer.partition(":")
        return cast("OpenWriter", getattr(import_module(module), function))


# Videos take well under a byte a pixel, all three of them.
_BUILT_IN = (
    Output(
        "depth.mp4",
        "_depth.mp4",
        f"depth in grey; .mov or .mkv where {option('depth_codec')} or sound asks for it",
        1 / 3,
        "dc_rt.media.results:grey_video",
        is_default=True,
        codec="depth_codec",
        bytes_of=lambda options: VIDEO_CODECS[options["depth_codec"]].bytes_per_pixel,
        cuts_values=True,
        takes_image=False,
    ),
    Output(
        "vis.mp4",
        "_vis.mp4",
        "depth in colours, H.264",
        1 / 3,
        "dc_rt.media.results:colour_video",
        is_default=True,
        codec="h264",
        takes_image=False,
    ),
    Output(
        "input.mp4",
        "_input.mp4",
        "the frames that were taken, at the size of the results, H.264",
        1 / 3,
        "dc_rt.media.results:input_video",
        is_default=True,
        codec="h264",
        takes_depth=False,
    ),
    Output(
        "npz",
        ".npz",
        "depth, float32 [T,H,W]",
        4,
        "dc_rt.media.results:npz",
        flag="--save-npz",
        takes_image=False,
    ),
    Output(
        "exr",
        ".exr",
        f"depth, a file a frame, float32 in channel Z unless {option('exr')} and {option('exr_type')} say otherwise",
        4,
        "dc_rt.media.results:exr",
        flag="--save-exr",
        kind="frames",
        bytes_of=lambda options: exr_bytes_per_pixel(options["exr"], options["exr_type"]),
        takes_only_text=True,
        takes_image=False,
    ),
    Output(
        "png",
        ".png",
        "depth, a file a frame, 16-bit grey",
        2,
        "dc_rt.media.results:png",
        cuts_values=True,
        flag="--save-png",
        kind="frames",
        takes_image=False,
    ),
    Output(
        "tiff",
        ".tiff",
        "depth, a file a frame, 16-bit grey, Deflate",
        2,
        "dc_rt.media.results:tiff",
        cuts_values=True,
        flag="--save-tiff",
        kind="frames",
        takes_image=False,
    ),
    Output(
        RAW,
        RAW_SUFFIX,
        "depth as the model gave it, for `dc-rt deliver`: a Zarr array",
        4,
        "dc_rt.media.results:raw_file",
        takes_image=False,
    ),
    Output(
        "stereo",
        "_3D_LRF_Full_SBS.mp4",
        f"left and right views, laid out as {option('stereo')} says, with sound, H.264",
        2 / 3,
        "dc_rt.media.stereo_results:stereo",
        codec="h264",
        needs=frozenset({"audio"}),
        beside_of=lambda options: 2 if options["stereo"] in ("sbs", "rgbd") else 1,
        by="stereo",
        # What players tell the layout by: docs/stereo.md.
        suffixes={
            "sbs": ("_3D_LRF_Full_SBS.mp4",),
            "half-sbs": ("_3D_HSBS_LR.mp4",),
            "anaglyph": ("_anaglyph.mp4",),
            "rgbd": ("_RGBD.mp4",),
            "left+right": ("_left.mp4", "_right.mp4"),
        },
    ),
    Output(
        "iw3",
        "_iw3",
        "a folder for iw3, which makes 3D videos of it: pictures, depth in 16-bit grey, sound",
        5,
        "dc_rt.media.iw3:Iw3Folder",
        kind="folder",
        needs=frozenset({"audio"}),
        layout=("rgb/frame_*.png", "depth/frame_*.png", "audio.*", "iw3_export.yml"),
    ),
    Output(
        "side-by-side",
        "_side_by_side.mp4",
        "the source, depth in grey and in colours beside one another, with sound, H.264",
        1,
        "dc_rt.media.stereo_results:side_by_side",
        cuts_values=True,
        flag="--side-by-side",
        beside=3,
        codec="h264",
        needs=frozenset({"audio"}),
    ),
    Output(
        STREAM,
        "",
        f"depth, frame by frame, as {option('pipe_format')} has it",
        0,
        "dc_rt.media.stream:stream",
        kind="stream",
        takes_image=False,
    ),
)


def frame_name(number: int, suffix: str, padding: int = FEWEST_DIGITS) -> str:
    """What the file of a frame is called, in an output of files a frame; `padding` is its number's digits at least."""
    return f"frame_{number:0{padding}d}{suffix}"


def is_frame_name(name: str, suffixes: Collection[str]) -> bool:
    """Whether `frame_name` calls a file so, with one of these suffixes."""
    stem, dot, suffix = name.partition(".")
    return f"{dot}{suffix}" in suffixes and _FRAME.fullmatch(stem) is not None


@cache
def all_outputs() -> Mapping[str, Output]:
    """Every output by its name: those that are built in, then those that installed packages add.

    Raises:
        UserError: a package that adds one cannot be imported, or adds something else.
    """
    return {row.name: row for row in (*_BUILT_IN, *_added())}


def _added() -> Iterator[Output]:
    taken = frozenset[str]().union(*(row.ever for row in _BUILT_IN))
    for plugin in sorted(entry_points(group=PLUGINS), key=lambda plugin: plugin.name):
        package = plugin.dist.name if plugin.dist else plugin.value
        try:
            row = plugin.load()
        except Exception as error:  # another package's code, which may raise anything
            raise UserError(
                f"The output {plugin.name} of the package {package} cannot be imported ({error}); "
                f"update or remove that package."
            ) from error
        if not isinstance(row, Output) or row.ever & taken:
            raise UserError(
                f"The output {plugin.name} of the package {package} is no dc_rt.outputs.Output with a suffix of its "
                "own; update or remove that package."
            )
        taken |= row.ever
        yield row
