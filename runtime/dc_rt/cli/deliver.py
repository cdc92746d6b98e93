"""`dc-rt deliver` and `dc-rt calibrate`: files from raw files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import typer

from dc_rt.cli.infer import check_stream, run_to_its_end, succeeds
from dc_rt.cli.progress import progress
from dc_rt.errors import UserError, option
from dc_rt.job import Calibration, Delivery, Listener, Truth
from dc_rt.job.deliver import FromRaw
from dc_rt.job.targets import Targets, check_batch
from dc_rt.options import Outputs


def deliver_all(
    raws: Sequence[Path], outputs: Outputs, save_folder: Path, source: Path | None, stream: BinaryIO | None = None
) -> None:
    """Deliver all that can be delivered; raises `typer.Exit` with status 1 if one could not."""
    check_stream(outputs, raws)
    if source is not None and len(raws) > 1:
        raise UserError(f"{option('source', source)} is the video of one raw file; deliver them one by one.")
    check_batch([Targets.of(raw, save_folder, outputs) for raw in raws])

    def deliver_one(raw: Path) -> None:
        _run(lambda listener: Delivery(raw, outputs, save_folder, source=source, stream=stream, listener=listener))

    done = [raw for raw in raws if succeeds(raw, partial(deliver_one, raw))]
    if len(done) < len(raws):
        raise typer.Exit(1)


def calibrate_one(
    raw: Path, truth: Truth, outputs: Outputs, save_folder: Path, focal: float | None, source: Path | None
) -> None:
    """Fit a and b, say what they are, and write the depth in metres."""
    _run(lambda listener: Calibration(raw, truth, outputs, save_folder, focal=focal, source=source, listener=listener))


def _run(make: Callable[[Listener], FromRaw]) -> None:
    with progress() as shown:
        run_to_its_end(make(shown.hear))
