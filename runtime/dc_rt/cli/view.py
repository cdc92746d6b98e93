"""`dc-rt view`: a stored result looked at in space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dc_rt.errors import UserError, option
from dc_rt.geometry import Lens
from dc_rt.stored import Stored, open_stored


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
    """

    page: Path | None
    ply: Path | None
    glb: Path | None
    viser: bool
    host: str
    port: int


def view_result(
    result: Path, wanted: Wanted, frames: Frames, focal: float | None, near: float | None, far: float | None
) -> None:
    """Make it; raises `UserError` where the result cannot be read."""
    stored = open_stored(result)
    usual = stored.lens or Lens()
    lens = Lens(
        usual.focal if focal is None else focal, usual.near if near is None else near, usual.far if far is None else far
    )
    numbers = frames.of(stored)
    if wanted.ply:
        from dc_rt.view.ply import write_ply

        write_ply(stored, wanted.ply, lens, numbers)
    if wanted.glb:
        from dc_rt.view.glb import write_glb

        write_glb(stored, wanted.glb, lens, numbers[0])
    if wanted.page or not (wanted.ply or wanted.glb or wanted.viser):
        from dc_rt.view.page import write_page

        write_page(stored, wanted.page or stored.path.with_name(f"{stored.name}_view.html"), lens, numbers)
    if wanted.viser:
        from dc_rt.view.remote import serve

        serve(stored, lens, numbers, wanted.host, wanted.port)
