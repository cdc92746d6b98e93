"""What `--dry-run` and `--fit` print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dc_rt.errors import option
from dc_rt.job.forecast import Forecast, size_in_words
from dc_rt.options import Outputs, Sampling


def described(forecast: Forecast, sampling: Sampling, outputs: Outputs, save_folder: Path) -> Iterator[str]:
    """The lines of `--dry-run` for one video; options marked."""
    setup, plan = forecast.setup, forecast.setup.plan
    yield (
        f"{plan.video.path}: {plan.num_frames} of {plan.video.num_frames} frames, "
        f"{plan.video.width}x{plan.video.height} -> {plan.width}x{plan.height}"
    )
    profile = setup.running.profile
    yield (
        f"  engines  {setup.choice.folder}: {setup.running.model.name} ({setup.running.precision}) on {setup.runs_on}, "
        f"profile {profile.name}; {setup.choice.reason}"
    )
    windows = "1 window" if forecast.num_windows == 1 else f"{forecast.num_windows} windows"
    evaluations = "1 evaluation" if forecast.evaluations == 1 else f"{forecast.evaluations} evaluations"
    yield f"  work     {windows} of up to {sampling.window_size} frames, {evaluations} in each"
    if plan.shots is None:
        yield f"  shots    not known: {option('shots', 'auto')} finds them when it runs; all above and below is of one"
    elif len(plan.shots) > 1:
        yield f"  shots    {len(plan.shots)}"
    yield f"  GPU      {_gpu(forecast)}"
    yield (
        f"  disk     up to {size_in_words(forecast.disk_needed)} in {save_folder}, "
        f"{size_in_words(forecast.disk_free)} are free"
    )
    yield f"  time     {_time(forecast)}"
    for note in (*plan.video.notes, *sampling.notes, *outputs.notes, *plan.notes_on_results(outputs)):
        yield f"  note     {note}"


def _gpu(forecast: Forecast) -> str:
    need, card = forecast.setup.need, forecast.card
    there = f"{size_in_words(card.free_bytes)} are free on {card.name}" if card else "there is no GPU here"
    if need is None:
        return f"no engines for it; {there}"
    return (
        f"{size_in_words(need.total)}: weights {size_in_words(need.weights)}, workspace "
        f"{size_in_words(need.workspace)}, frames {size_in_words(need.arrays)}, CUDA about "
        f"{size_in_words(need.overhead)}; {there} ({option('cpu_offload', forecast.setup.cpu_offload)})"
    )


def _time(forecast: Forecast) -> str:
    if forecast.pace is None or forecast.seconds is None:
        return "not known: this set has not run on this machine yet"
    pace = forecast.pace
    return (
        f"about {_duration(forecast.seconds)}, as fast as the set was on {pace.video} at {pace.width}x{pace.height} "
        f"({pace.when})"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
