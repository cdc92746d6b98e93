"""The page: what it is made of, and what happens when something of it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from dc_rt.errors import UserError
from dc_rt.serve.errors import Refused
from dc_rt.serve.jobs import ServedJob
from dc_rt.webapp import form, shown
from dc_rt.webapp.desk import Desk

log = logging.getLogger(__name__)

TITLE = "DepthCrafter-RT"
_TICK_SECONDS = 0.5
_SWEEP_SECONDS = 600  # between two looks for uploads that are old
_BUG = "That failed through a fault in dc-rt itself; what the app printed says more."
_EMPTY = (
    '<div class="dc-empty"><p>The video, its depth and the files appear here.</p>'
    "<p>Choose a video, or one of the examples, and press <strong>Estimate depth</strong>.</p></div>"
)
_HEADER = (
    f'<div class="dc-header"><img src="/page/icon.svg" alt="" width="40" height="40"><div><h1>{TITLE}</h1>'
    "<p>Consistent depth for videos, on this machine</p></div></div>"
)


class Page:
    """The page of an app; `blocks` is what Gradio serves."""

    def __init__(
        self,
        desk: Desk,
        browser_of: Callable[[dict[str, str]], str],
        examples: Sequence[Path],
        keeps: str,
        hours: float,
    ) -> None:
        """Make it.

        Args:
            desk: does what is asked for.
            browser_of: names the browser of a request by its cookies.
            examples: videos to begin with.
            keeps: how long results stay, in a sentence.
            hours: after which a video that came in is removed; 0 for never.
        """
        self._desk = desk
        self._browser_of = browser_of
        self._names = [*form.FIRST, *(name for _, names in form.panels() for name in names)]
        sweep = (_SWEEP_SECONDS, round(hours * 3600)) if hours else None
        with gr.Blocks(analytics_enabled=False, title=TITLE, fill_width=True, delete_cache=sweep) as self.blocks:
            self._lay_out(examples, keeps)
            self._connect()

    def _lay_out(self, examples: Sequence[Path], keeps: str) -> None:
        _html(_HEADER)
        with gr.Row(elem_classes="dc-main", equal_height=False):
            with gr.Column(scale=4, min_width=320):
                self._lay_out_input(examples)
            with gr.Column(scale=7, min_width=340, elem_classes="dc-right"):
                self._lay_out_output(keeps)
        self._job = gr.State(None)
        self._seen = gr.State("")
        self._timer = gr.Timer(_TICK_SECONDS, active=False)

    def _lay_out_input(self, examples: Sequence[Path]) -> None:
        self._video = gr.Video(
            label="Video",
            sources=["upload", "webcam"],
            # Mirrored, it would be no picture of what was before the camera; without sound FFmpeg's program is needed.
            webcam_options=gr.WebcamOptions(mirror=False),
            include_audio=True,
            elem_id="video",
        )
        self._about_video = _html("", elem_id="about-video")
        self._examples = [
            gr.Button(path.stem, size="sm", variant="secondary", elem_classes="dc-example", render=False)
            for path in examples
        ]
        self._example_paths = list(examples)
        if examples:
            with gr.Row(elem_classes="dc-examples"):
                _html('<span class="dc-quiet">Examples</span>')
                for button in self._examples:
                    button.render()
        self._fields: dict[str, Any] = {}
        table = form.rows()
        with gr.Row(elem_classes="dc-fields"):
            for name in form.FIRST:
                self._fields[name] = _field(table[name])
        self._run = gr.Button("Estimate depth", variant="primary", size="lg", elem_id="run")
        for title, names in form.panels():
            with gr.Accordion(title, open=False), gr.Row(elem_classes="dc-fields"):
                for name in names:
                    self._fields[name] = _field(table[name])

    def _lay_out_output(self, keeps: str) -> None:
        self._problem = _html("", elem_id="problem")
        self._card = _html(_EMPTY, elem_id="card")
        with gr.Row(elem_classes="dc-actions"):
            self._cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
            self._resume = gr.Button("Resume", variant="primary", visible=False, elem_id="resume")
            self._remove = gr.Button("Delete", variant="secondary", visible=False, elem_id="remove")
        self._results = _html("", elem_id="results")
        self._jobs = gr.Radio([], label="Videos of this browser", visible=False, elem_id="jobs")
        _html(
            '<p class="dc-quiet dc-promise">A tab that is closed cancels nothing: open the page again in this browser, '
            f"and the video is here, running or finished. {keeps}</p>"
        )

    def _connect(self) -> None:
        view = [
            self._card,
            self._results,
            self._cancel,
            self._resume,
            self._remove,
            self._jobs,
            self._timer,
            self._seen,
        ]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        job, fields = self._job, [self._fields[name] for name in self._names]
        self._run.click(self._submit, [self._video, *fields], [job, self._problem], **quiet).then(
            self._look, [job], view, **quiet
        )
        for button, act in ((self._cancel, self._do_cancel), (self._resume, self._do_resume)):
            button.click(act, [job], [self._problem], **quiet).then(self._look, [job], view, **quiet)
        self._remove.click(self._do_remove, [job], [job, self._problem], **quiet).then(self._look, [job], view, **quiet)
        self._jobs.input(lambda chosen: (chosen, ""), [self._jobs], [job, self._problem], **quiet).then(
            self._look, [job], view, **quiet
        )
        self._timer.tick(self._tick, [job, self._seen], view, **quiet)
        self._video.change(self._look_at, [self._video], [self._about_video, self._problem], **quiet)
        for button, path in zip(self._examples, self._example_paths, strict=True):
            button.click(partial(self._take_example, path), None, [self._video], **quiet)
        self.blocks.load(self._enter, None, [job], **quiet).then(self._look, [job], view, **quiet)

    # What happens.

    def _enter(self, request: gr.Request) -> str | None:
        """The page was opened: the browser's own job that is under way, or its newest one."""
        jobs = self._desk.jobs_of(self._browser(request))
        under_way = [job for job in jobs if not job.state.is_ended]
        return next((job.id for job in [*reversed(under_way), *jobs]), None)

    def _look_at(self, video: str | None) -> tuple[str, str]:
        """A video has come: what is none is refused at once, and what was said of others is gone."""
        return shown.problem(_tried(lambda: self._desk.look_at(Path(video)) if video else None)), ""

    def _take_example(self, path: Path) -> str:
        """One that was removed with the old uploads comes in again."""
        return str(self._desk.take_in(path))

    def _submit(self, video: str | None, request: gr.Request, *values: Any) -> tuple[Any, str]:
        if not video:
            return gr.skip(), shown.problem("There is no video yet; choose one, record one, or take an example.")
        made: list[ServedJob] = []
        browser, given = self._browser(request), form.given(self._names, values)
        sentence = _tried(lambda: made.append(self._desk.submit(browser, Path(video), given)))
        return (made[0].id if made else gr.skip()), shown.problem(sentence)

    def _do_cancel(self, id: str | None, request: gr.Request) -> str:
        return self._of_job(id, request, self._desk.cancel)

    def _do_resume(self, id: str | None, request: gr.Request) -> str:
        return self._of_job(id, request, self._desk.resume)

    def _do_remove(self, id: str | None, request: gr.Request) -> tuple[str | None, str]:
        problem = self._of_job(id, request, self._desk.remove)
        return (id if problem else self._enter(request)), problem

    def _of_job(self, id: str | None, request: gr.Request, act: Callable[[ServedJob], None]) -> str:
        job = self._desk.find(self._browser(request), id)
        return shown.problem(_tried(lambda: act(job)) if job else "")

    def _tick(self, id: str | None, seen: str, request: gr.Request) -> list[Any]:
        """As `_look`, with what has not changed left as it is."""
        view = self._look(id, request)
        if view[-1] != seen:
            return view
        return [view[0], *[gr.skip()] * (len(view) - 1)]

    def _look(self, id: str | None, request: gr.Request) -> list[Any]:
        """A job as it is now, and the others of this browser."""
        browser = self._browser(request)
        job = self._desk.find(browser, id)
        jobs = self._desk.jobs_of(browser)
        listed = [(shown.label(each), each.id) for each in jobs]
        chooser = gr.Radio(choices=listed, value=job.id if job else None, visible=len(jobs) > 1)
        if job is None:
            hidden = [gr.Button(visible=False)] * 3
            return [_EMPTY, "", *hidden, chooser, gr.Timer(active=False), f"{listed}"]
        state = job.state
        return [
            shown.card(job, self._desk.story(job), self._desk.place(job)),
            shown.results(job),
            gr.Button(visible=not state.is_ended),
            gr.Button(visible=state.status in ("failed", "cancelled")),
            gr.Button(visible=state.is_ended),
            chooser,
            gr.Timer(active=not all(each.state.is_ended for each in jobs)),
            f"{job.id} {listed}",
        ]

    def _browser(self, request: gr.Request) -> str:
        return self._browser_of(dict(request.cookies))


def _tried(step: Callable[[], Any]) -> str:
    """The sentence of what went wrong with a step; empty where nothing did."""
    try:
        step()
    except UserError as error:
        return form.said(error)
    except Refused as error:
        return error.sentence
    except OSError as error:
        log.warning("a file: %s", error)
        return f"A file could not be read or written ({error.strerror}); try again."
    except Exception:
        log.exception("the page failed through a fault in dc-rt")
        return _BUG
    return ""


def _html(value: str, **about: Any) -> Any:
    """HTML of ours as it is: without the theme's style for text, and without a script for clicks."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **about)


def _field(row: dict[str, Any]) -> Any:
    """The field of an option: its range, its values and its default are those of the table."""
    name, kind, default = row["name"], row["kind"], row["default"]
    about = {"label": form.label_of(name), "info": row["help"], "elem_id": f"option-{name}", "min_width": 150}
    if kind == "names":
        choices = [(f"{each} · {row['choices_help'][each]}", each) for each in row["choices"]]
        return gr.CheckboxGroup(choices, value=default, **about)
    if kind == "choice":
        return gr.Dropdown(row["choices"], value=default, **about)
    if kind == "boolean":
        return gr.Checkbox(value=default, **about)
    if kind == "text":
        usual = form.usual_values(name)
        if usual:
            return gr.Dropdown(usual, value=default, allow_custom_value=True, **about)
        return gr.Textbox(value=default, max_lines=1, **about)
    # Not as the field's own limits, which would be a pop-up's words: a wrong value is refused in ours.
    return gr.Number(value=default, precision=0 if kind == "integer" else None, **about)
