"""`dc-rt compare`: what is printed of two results, and where the video of their difference goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dc_rt.cli.terminal import say
from dc_rt.compare import Comparison, compare, open_pair
from dc_rt.errors import UserError, option
from dc_rt.job.targets import result_name

_PARTIAL = ".part"


def compare_results(a: Path, b: Path, save_folder: Path, side_by_side: bool, overwrite: bool) -> None:
    """Compare two results, write A_vs_B.mp4 and print the figures; raises `UserError` before any work, or `OSError`."""
    video = save_folder / f"{result_name(a)}_vs_{result_name(b)}.mp4"
    if video.exists() and not overwrite:
        raise UserError(
            f"{video} is there already; replace it with {option('overwrite', True)}, or give another "
            f"{option('save_folder')}."
        )
    pair = open_pair(a, b)
    save_folder.mkdir(parents=True, exist_ok=True)
    partial = video.with_name(f".{video.name}{_PARTIAL}")
    try:
        found = compare(*pair, partial, side_by_side=side_by_side)
        partial.replace(video)
    finally:
        partial.unlink(missing_ok=True)
    for line in described(found):
        say(line)
    say(f"{video}: red where A is larger, blue where B is; full colour at {found.full_colour:.4g}")


def described(found: Comparison) -> Iterator[str]:
    """The figures, in lines."""
    yield f"A and B: {found.num_frames} frames, {found.width}x{found.height}"
    yield f"  |A - B|      mean {found.mean:.4g}, largest {found.largest:.4g}, root mean square {found.rms:.4g}"
    yield (
        f"  aligned      {found.scale:.6g} A {found.shift:+.6g} is nearest to B: mean {found.mean_aligned:.4g}, "
        f"relative to B {found.relative:.4g}"
    )
    opposite = " (one has near white, the other far)" if found.correlation < 0 else ""
    yield f"  correlation  {found.correlation:.6f}{opposite}"
    yield f"  flicker      A {found.flicker[0]:.4g}, B {found.flicker[1]:.4g}: mean change from a frame to the next"
    yield f"  most apart   {', '.join(f'frame {index} ({mean:.4g})' for index, mean in found.worst)}"
