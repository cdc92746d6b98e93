"""A job as the page shows it: HTML of how far it is, and of what came of it. All that others named is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from dc_rt.cli.progress import in_minutes
from dc_rt.outputs import all_outputs
from dc_rt.serve.jobs import ResultFile, ServedJob
from dc_rt.webapp.desk import Story
from dc_rt.webapp.form import plain
from dc_rt.webapp.gate import RESULTS

_STAGES = {
    "detect": "looking for cuts",
    "read": "reading the video",
    "clip_encoder": "encoding frames",
    "vae_encoder": "encoding frames",
    "denoiser": "estimating depth",
    "vae_decoder": "decoding depth",
    "write": "writing the results",
}
_TITLES = {
    "queued": "Waiting",
    "running": "Running",
    "finished": "Finished",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def card(job: ServedJob, story: Story, place: int | None) -> str:
    """How far a job is; `place` is how many runs end before it has its turn, of one that waits."""
    status = job.state.status
    lines = [f'<p class="dc-line">{escape(line)}</p>' for line in _lines(job, story, place)]
    return (
        f'<div class="dc-card" data-status="{status}" data-job="{escape(job.id)}"><div class="dc-head">'
        f'<h3>{escape(job.state.filename)}</h3><span class="dc-status" role="status">{_TITLES[status]}</span></div>'
        f"{_bar(job)}{''.join(lines)}{_notes(story)}</div>"
    )


def problem(sentence: str) -> str:
    """What is wrong, where the person looks; empty where nothing is."""
    return f'<p class="dc-problem" role="alert">{escape(sentence)}</p>' if sentence else ""


def results(job: ServedJob) -> str:
    """What came of a job that has finished: a player of what browsers play, and a link to every file."""
    files = job.files()
    if not files:
        return ""
    about = [
        {"name": each.name, "kind": each.kind, "media_type": each.media_type, "url": _url(job, each)} for each in files
    ]
    rows = "".join(_row(job, each) for each in files)
    title, data = escape(job.state.filename), escape(json.dumps(about))
    return (
        f'<div class="dc-player" data-title="{title}" data-files="{data}"></div>'
        f'<h3 class="dc-files-title">Files</h3><ul class="dc-files">{rows}</ul>'
    )


def label(job: ServedJob) -> str:
    """A job in a list of them."""
    return f"{job.state.filename} · {_TITLES[job.state.status].lower()}"


def size_in_words(size: float) -> str:
    """Bytes as people read them: 1.2 MB."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 9.95 else f"{size:.1f} {_UNITS[unit]}"


def _bar(job: ServedJob) -> str:
    if job.state.status not in ("queued", "running"):
        return ""
    value = "" if job.share is None else f' value="{job.share:.4f}"'
    return f'<progress max="1"{value} aria-label="Progress of {escape(job.state.filename)}"></progress>'


def _lines(job: ServedJob, story: Story, place: int | None) -> Iterator[str]:
    state = job.state
    match state.status:
        case "queued":
            yield "It is next." if not place else f"In the queue: {_counted(place, 'video')} before it."
        case "running":
            yield _progress(job, story)
        case "finished":
            yield f"{_counted(state.num_frames or 0, 'frame')}" + (
                "" if story.seconds is None else f" in {in_minutes(story.seconds)}"
            )
        case "failed":
            yield state.error or ""
        case "cancelled":
            kept = job.is_resumable
            yield "What was done is kept: Resume goes on from there." if kept else "Nothing was done yet that is kept."
    if story.num_resumed:
        yield f"Resumed after frame {story.num_resumed} of an unfinished run."
    if plan := story.planned:
        yield (
            f"{plan['source_width']}x{plan['source_height']} at {plan['source_fps']:.4g} frames/s, estimated at "
            f"{plan['width']}x{plan['height']}, {plan['fps']:.4g} frames/s"
        )


def _progress(job: ServedJob, story: Story) -> str:
    if job.share is None or not story.planned:
        return "Opening the model…"
    parts = [f"{100 * job.share:.0f} %", f"{job.num_done} of {_counted(story.planned['num_frames'], 'frame')} done"]
    if stage := _STAGES.get(job.stage):
        parts.append(stage)
    parts.append("starting" if job.seconds_left is None else f"about {in_minutes(job.seconds_left)} left")
    return " · ".join(parts)


def _notes(story: Story) -> str:
    shots = [] if not story.num_shots else [f"{_counted(story.num_shots, 'shot')} found, each estimated by itself."]
    demonstration = story.planned.get("demonstration", "")
    notes = [*([demonstration] if demonstration else []), *story.planned.get("notes", ()), *shots, *story.warnings]
    return "".join(f'<p class="dc-note">{escape(note)}</p>' for note in notes)


def _row(job: ServedJob, file: ResultFile) -> str:
    return (
        f'<li><a href="{_url(job, file)}" download="{escape(file.name)}">{escape(file.name)}</a>'
        f"<small>{escape(_about(file))}</small><span>{size_in_words(file.bytes)}</span></li>"
    )


def _about(file: ResultFile) -> str:
    """What a file is, in a phrase."""
    if file.kind == "record":
        return "what was done, from what and with what"
    if file.kind == "folder":
        return "the files of the folder"
    row = all_outputs().get(file.kind)
    return plain(row.help) if row else ""


def _url(job: ServedJob, file: ResultFile) -> str:
    return f"{RESULTS}/{quote(job.id)}/{quote(file.name)}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
