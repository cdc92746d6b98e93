"""`dc-rt view`: a stored result looked at in space."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dc_rt.cli.terminal import can_redraw, say
from dc_rt.errors import UserError, option
from dc_rt.geometry import Lens
from dc_rt.job.forecast import size_in_words
from dc_rt.job.targets import result_name
from dc_rt.stored import Stored, open_stored

_RECORD = ".json"


@dataclass(frozen=True)
class Frames:
    """Which frames of a result are taken, counted from 0: from `first` to `last`, every `every`th."""

    first: int
    last: int | None
    every: int

    def of(self, stored: Stored) -> range:
        """Their numbers; raises `UserError` where there are none."""
        last = stored.num_frames - 1 if self.last is None else self.last
        if not self.first <= last < stored.num_frames:
            raise UserError(
                f"{stored.path} has the frames 0 to {stored.num_frames - 1}, and {option('first', self.first)} to "
                f"{option('last', last)} are none of them; choose others."
            )
        return range(self.first, last + 1, self.every)


@dataclass(frozen=True)
class Wanted:
    """What is to be made of a result: the page unless there is something else.

    Attributes:
        page: the HTML file; None for `NAME_view.html` beside the record.
        ply: folder of a point cloud a frame.
        glb: file of the first frame as a mesh.
        viser: serve it to browsers, on `host` and `port`.
        max_size, depth_bits: of the page, as `dc_rt.view.page.Packing` has them.
    """

    page: Path | None
    ply: Path | None
    glb: Path | None
    viser: bool
    host: str
    port: int
    max_size: int
    depth_bits: int


def view_result(
    result: Path, wanted: Wanted, frames: Frames, focal: float | None, near: float | None, far: float | None
) -> None:
    """Make it; raises `UserError` where the result cannot be read."""
    # As Ctrl-C, so that no draft is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stored = open_stored(record_of(result))
    if stored.lens:
        _check_measured(stored, near=near, far=far)
    usual = stored.lens or Lens()
    lens = Lens(
        usual.focal if focal is None else focal, usual.near if near is None else near, usual.far if far is None else far
    )
    numbers = frames.of(stored)
    if wanted.ply:
        from dc_rt.view.ply import write_ply

        write_ply(stored, wanted.ply, lens, numbers)
        clouds = "1 point cloud" if len(numbers) == 1 else f"{len(numbers)} point clouds"
        say(f"{wanted.ply}: {clouds} of {stored.width}x{stored.height}")
    if wanted.glb:
        from dc_rt.view.glb import write_glb

        write_glb(stored, wanted.glb, lens, numbers[0])
        say(f"{wanted.glb}: frame {numbers[0]} as a mesh, {size_in_words(wanted.glb.stat().st_size)}")
    if wanted.page or not (wanted.ply or wanted.glb or wanted.viser):
        _write_page(stored, wanted, lens, numbers)
    if wanted.viser:
        from dc_rt.view.remote import serve

        serve(stored, lens, numbers, wanted.host, wanted.port, say)


def _check_measured(stored: Stored, **distances: float | None) -> None:
    """Raise `UserError` where distances are given of a result that has its own, in metres."""
    given = [option(name, value) for name, value in distances.items() if value is not None]
    if given:
        raise UserError(f"{stored.path} is in metres, by its calibration; leave {' and '.join(given)} out.")


def _write_page(stored: Stored, wanted: Wanted, lens: Lens, numbers: range) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from dc_rt.view.page import Packing, write_page

    path = wanted.page or stored.path.with_name(f"{stored.name}_view.html")
    packing = Packing(wanted.max_size, wanted.depth_bits)
    with Progress(console=Console(stderr=True), transient=True, disable=not can_redraw(sys.stderr)) as bar:
        task = bar.add_task("Packing frames", total=len(numbers))
        write_page(stored, path, lens, numbers, packing, say, lambda: bar.advance(task))
    say(f"{path}: {size_in_words(path.stat().st_size)}; open it in a browser")


def record_of(result: Path) -> Path:
    """The `NAME.json` of what was given: itself; or that beside a result, a folder of results, or a video.

    Raises `UserError` where there is none, or several.
    """
    if result.suffix == _RECORD:
        return result
    if result.is_dir():
        inside = sorted(path for path in result.glob(f"*{_RECORD}") if _listed(path) is not None)
        if len(inside) == 1:
            return inside[0]
        if inside:
            raise UserError(
                f"{result} has the records of {len(inside)} results; give one of them, such as {inside[0]}."
            )
    place = result.absolute()
    # That of the result lists it; that of the video, or of a folder of frames, is called after it.
    for length in range(len(place.name), 0, -1):
        record = place.with_name(f"{place.name[:length]}{_RECORD}")
        if place.name in (_listed(record) or ()):
            return record
    record = place.with_name(f"{result_name(place)}{_RECORD}")
    if _listed(record) is not None:
        return record
    raise UserError(
        f"No record of a run is beside {result}; give the NAME.json that `dc-rt infer` left with its results."
    )


def _listed(record: Path) -> Collection[str] | None:
    """The files that a record lists; None where there is no record."""
    try:
        contents = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None
    files = contents.get("files") if isinstance(contents, dict) else None
    return files if isinstance(files, dict) else None
