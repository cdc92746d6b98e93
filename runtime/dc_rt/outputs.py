"""What a run can write: one row an output. Everything else, from flags to disk space, is derived from these.

Any package can add one: `name = "module:row"` in its entry-point group `dc_rt.outputs`, the row an `Output`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

from dc_rt.errors import UserError

if TYPE_CHECKING:
    from dc_rt.media.results import OpenWriter

PLUGINS = "dc_rt.outputs"
STREAM = "-"
"""The name of the output that is standard output."""
_FRAME = re.compile(r"frame_\d{4,}")


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        name: what `outputs` takes.
        suffix: of the file, after the video's name: `_depth.mp4`; of each frame's, with `is_frames`: `.exr`.
        help: what is written, in a phrase.
        bytes_per_pixel: at most, in all its files, but for headers.
        writer: "module:function" of what opens it, a `dc_rt.media.results.OpenWriter`: imported when it is used, so
            that listing outputs waits for no library.
        flag: an option of the command line's that adds it to the default ones, if there is one.
        is_default: whether it is written unless other outputs are asked for.
        kind: "file"; "frames", a file a frame in a folder that is called as the video is, named by `frame_name`: by
            that a later run knows them; "folder", a folder of a layout of its own, `NAME` and the suffix; "stream",
            standard output, and no file.
        by: the option that chooses another suffix, if there is one.
        suffixes: those that its values choose, several where several files are written.
        takes_only_text: whether its library takes no names that are no text, as file systems do.
        needs: what of a frame is only read where it is asked for: "source", "audio".
        takes_depth: whether it takes depth of a frame, or its range; if not, it may be written while the model runs.
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
    by: str = ""
    suffixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    takes_only_text: bool = False
    needs: frozenset[str] = frozenset()
    takes_depth: bool = True
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
        return f"NAME/{frame_name(0, self.suffix)}" if self.is_frames else f"NAME{self.suffix}"

    @property
    def files(self) -> tuple[str, ...]:
        """Suffixes of all files, or of the folder, that it is written to: the chosen one's, if `chosen` chose."""
        return next((each for each in self.suffixes.values() if each[0] == self.suffix), (self.suffix,))

    @property
    def ever(self) -> frozenset[str]:
        """Suffixes of all files that it is ever written to, whatever is chosen."""
        return frozenset((self.suffix, *(suffix for each in self.suffixes.values() for suffix in each)))

    def chosen(self, options: Mapping[str, Any]) -> Output:
        """The same with the suffix that these options ask for."""
        suffixes = self.suffixes.get(str(options.get(self.by)))
        return replace(self, suffix=suffixes[0]) if suffixes else self

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
        "depth in grey, H.264",
        1 / 3,
        "dc_rt.media.results:grey_video",
        is_default=True,
        takes_image=False,
    ),
    Output(
        "vis.mp4",
        "_vis.mp4",
        "depth in colours (inferno), H.264",
        1 / 3,
        "dc_rt.media.results:colour_video",
        is_default=True,
        takes_image=False,
    ),
    Output(
        "input.mp4",
        "_input.mp4",
        "the frames that were taken, at the size they were processed at, H.264",
        1 / 3,
        "dc_rt.media.results:input_video",
        is_default=True,
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
        "depth, a file a frame, float32 in channel Z",
        4,
        "dc_rt.media.results:exr",
        flag="--save-exr",
        kind="frames",
        takes_only_text=True,
        takes_image=False,
    ),
    Output(
        "png",
        ".png",
        "depth, a file a frame, 16-bit grey",
        2,
        "dc_rt.media.results:png",
        flag="--save-png",
        kind="frames",
        takes_image=False,
    ),
    Output(
        STREAM,
        "",
        "depth, frame by frame, as --pipe-format has it",
        0,
        "dc_rt.media.stream:stream",
        kind="stream",
        takes_image=False,
    ),
)


def frame_name(number: int, suffix: str) -> str:
    """What the file of a frame is called, in an output of files a frame."""
    return f"frame_{number:04d}{suffix}"


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
    taken = {row.suffix for row in _BUILT_IN}
    for plugin in sorted(entry_points(group=PLUGINS), key=lambda plugin: plugin.name):
        package = plugin.dist.name if plugin.dist else plugin.value
        try:
            row = plugin.load()
        except Exception as error:  # another package's code, which may raise anything
            raise UserError(
                f"The output {plugin.name} of the package {package} cannot be imported ({error}); "
                f"update or remove that package."
            ) from error
        if not isinstance(row, Output) or row.suffix in taken:
            raise UserError(
                f"The output {plugin.name} of the package {package} is no dc_rt.outputs.Output with a suffix of its "
                "own; update or remove that package."
            )
        taken.add(row.suffix)
        yield row
