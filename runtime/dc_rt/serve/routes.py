"""The routes: what can be asked, and what each may answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from dc_rt.serve import choices
from dc_rt.serve.errors import Refused
from dc_rt.serve.guard import COOKIE, session_of
from dc_rt.serve.jobs import ResultFile, ServedJob
from dc_rt.serve.kinds import SUFFIXES
from dc_rt.serve.schemas import (
    FileOfJob,
    Health,
    JobShown,
    JobsShown,
    LimitsShown,
    NewJob,
    OptionShown,
    OptionsShown,
    Problem,
    Readiness,
)
from dc_rt.serve.service import Service, read_options
from dc_rt.serve.uploads import content_type
from dc_rt.serve.zipped import zipped

PAGE = Path(__file__).parent / "page"

_CANCEL_SECONDS = 10.0  # that a run may take to end; it is killed after two
_POLL_SECONDS = 0.05

_WHY = {
    400: "The request cannot be understood, or calls this machine by a name that it does not go by.",
    401: "There is no token in the request, or a wrong one.",
    403: "The request comes from a page of another site.",
    404: "There is no such job, file or video.",
    408: "The request came too slowly.",
    409: "The job is in no state for that.",
    413: "The request is too large.",
    415: "It is not of a type that is taken.",
    416: "The range lies outside of the file.",
    422: "A value is not as it must be, or the video cannot be run.",
    429: "The queue is full.",
    500: "The service failed through a fault of its own.",
    503: "Not now; try again later.",
    507: "The disk has no room.",
}


def may(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route may answer with, beside those that all may."""
    return {status: {"model": Problem, "description": _WHY[status]} for status in sorted({400, 401, 500, *statuses})}


open_routes = APIRouter()
"""For everybody."""
routes = APIRouter()
"""For whoever has the token."""


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]


def _job(id: str, service: Serving) -> ServedJob:
    return service.store.get(id)


Named = Annotated[ServedJob, Depends(_job)]


@open_routes.get("/health", responses=may())
def health() -> Health:
    """Whether the service is alive."""
    return Health()


@open_routes.get("/ready", responses=may(503))
def ready(service: Serving) -> Readiness:
    """Whether it can run jobs: there are engines, the disk has room, the folder can be written to."""
    if problems := service.problems():
        raise Refused(503, problems[0])
    return Readiness()


@open_routes.get("/", include_in_schema=False)
def page() -> FileResponse:
    """The page."""
    return _part_of_page("index.html")


@open_routes.get("/page/{name}", include_in_schema=False)
def part_of_page(name: str) -> FileResponse:
    """What the page is made of."""
    return _part_of_page(name)


def _part_of_page(name: str) -> FileResponse:
    parts = {path.name: path for path in PAGE.iterdir() if path.is_file()}
    if name not in parts:
        raise HTTPException(404)
    return FileResponse(parts[name], headers={"Cache-Control": "no-cache"})


@routes.post("/session", status_code=204, responses=may(403, 413))
def begin_session(request: Request, response: Response, service: Serving) -> None:
    """Give a browser a cookie that stands for the token: it can put no token on links, videos and streams of events."""
    if token := service.settings.token:
        is_secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict", secure=is_secure)


@routes.delete("/session", status_code=204, responses=may(403, 413))
def end_session(response: Response) -> None:
    """Take the cookie away."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


@routes.get("/options")
def options(service: Serving) -> OptionsShown:
    """What a client may choose, and how much the service takes."""
    limits = service.settings.limits
    return OptionsShown(
        options=[OptionShown(**row) for row in choices.table()],
        limits=LimitsShown(
            max_upload_bytes=int(limits.upload_bytes),
            max_frames=limits.num_frames,
            max_steps=limits.num_steps,
            max_pixels=limits.num_pixels,
            max_queue=limits.num_queued,
        ),
        has_roots=bool(service.settings.roots),
        suffixes=list(SUFFIXES),
    )


def _only_json(request: Request) -> None:
    """Of another type a page of another site could send it without being asked whether it may."""
    if content_type(request) != "application/json":
        raise Refused(415, "The request must be JSON, with Content-Type: application/json.")


@routes.post(
    "/jobs",
    status_code=201,
    dependencies=[Depends(_only_json)],
    responses=may(403, 404, 408, 413, 415, 422, 429, 503, 507),
)
async def add_job(new: NewJob, response: Response, service: Serving) -> JobShown:
    """Queue a video, or a folder of images, that is under a root of the service's."""
    job = await service.add_path(new.path, new.options)
    response.headers["Location"] = f"/jobs/{job.id}"
    return _shown(job, service)


@routes.post(
    "/jobs/upload",
    status_code=201,
    responses=may(403, 408, 413, 415, 422, 429, 503, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The video itself.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
        }
    },
)
async def add_upload(
    request: Request,
    response: Response,
    service: Serving,
    filename: Annotated[str, Query(description="What the video is called, to be shown.", max_length=1000)] = "video",
    options: Annotated[str, Query(description="JSON: options by name, as `GET /options` has them.")] = "",
) -> JobShown:
    """Queue the video that is the request's body."""
    job = await service.add_upload(request, filename, read_options(options))
    response.headers["Location"] = f"/jobs/{job.id}"
    return _shown(job, service)


@routes.get("/jobs", responses=may(404, 422))
def list_jobs(
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
    after: Annotated[str | None, Query(description="The `next` of the jobs before.")] = None,
) -> JobsShown:
    """The jobs, the newest first."""
    jobs = service.store.all()
    ids = [job.id for job in jobs]
    if after is not None and after not in ids:
        raise Refused(404, "There is no such job to go on after, or it was removed; begin anew without after.")
    start = 0 if after is None else ids.index(after) + 1
    some = jobs[start : start + limit]
    positions = service.store.positions()
    return JobsShown(
        jobs=[_shown(job, service, positions) for job in some],
        next=some[-1].id if some and start + limit < len(jobs) else None,
        num_queued=len(positions),
        num_running=service.store.num_running(),
    )


@routes.get("/jobs/{id}", responses=may(404))
def get_job(job: Named, service: Serving) -> JobShown:
    """A job, as it is now."""
    return _shown(job, service)


@routes.post("/jobs/{id}/cancel", responses=may(403, 404, 409, 413, 503))
async def cancel_job(job: Named, service: Serving) -> JobShown:
    """End a job; what was done is kept, and it can be resumed. The answer comes once it has ended."""
    if job.state.is_ended:
        raise Refused(409, f"The job is {job.state.status} already.")
    if not service.store.cancel_queued(job):
        for _ in range(round(_CANCEL_SECONDS / _POLL_SECONDS)):
            service.crew.cancel(job)
            if job.state.is_ended:
                break
            await asyncio.sleep(_POLL_SECONDS)
    if not job.state.is_ended:
        raise Refused(503, "The job is about to end; ask again in a moment.", {"Retry-After": "1"})
    return _shown(job, service)


@routes.post("/jobs/{id}/resume", responses=may(403, 404, 409, 413, 429, 503))
def resume_job(job: Named, service: Serving) -> JobShown:
    """Queue a job again that failed or was cancelled: it goes on from where it was."""
    service.resume(job)
    return _shown(job, service)


@routes.delete("/jobs/{id}", status_code=204, responses=may(403, 404, 409, 413))
def remove_job(job: Named, service: Serving) -> None:
    """Remove a job with its video and its results."""
    service.store.remove(job)


@routes.get("/jobs/{id}/files", responses=may(404))
def list_files(job: Named) -> list[FileOfJob]:
    """All results of a job, those in folders one by one too."""
    return [_file(file) for file in job.all_files()]


@routes.head("/jobs/{id}/files/{name:path}", include_in_schema=False)
@routes.get(
    "/jobs/{id}/files/{name:path}",
    response_class=FileResponse,
    responses=may(404, 416)
    | {
        200: {"description": "The file.", "content": {"*/*": {"schema": {}}}},
        206: {"description": "A range of it.", "content": {"*/*": {"schema": {}}}},
    },
)
def get_file(job: Named, name: str) -> Response:
    """A result, or the range of it that is asked for; a folder as a ZIP file, whose ranges cannot be had."""
    file = job.find(name)
    if file is None or not file.path.exists():  # it is being removed
        raise Refused(404, "The job has no such file; GET /jobs/{id}/files lists those of a job that has finished.")
    base = name.rpartition("/")[2]
    if file.kind == "folder":
        headers = {"Content-Disposition": FileResponse(file.path, filename=base).headers["content-disposition"]}
        return StreamingResponse(zipped(file.path), media_type=file.media_type, headers=headers)
    headers = {"Cache-Control": "private, no-cache"}
    return FileResponse(file.path, media_type=file.media_type, filename=base, headers=headers)


async def _stream(service: Serving) -> AsyncIterator[None]:
    """One of the streams that may be open at once."""
    if service.metrics.num_streams >= service.settings.limits.num_streams:
        raise Refused(503, "Too many listen to events already; try again later.", {"Retry-After": "10"})
    service.metrics.num_streams += 1
    try:
        yield
    finally:
        service.metrics.num_streams -= 1


def _last_id(
    job: Named,
    last_event_id: Annotated[int, Header(ge=0, description="Of the last event that was heard.")] = 0,
    after: Annotated[int, Query(ge=0, alias="last_event_id", description="The same, for who sends no headers.")] = 0,
) -> int:
    last_id = max(last_event_id, after)
    if job.state.is_ended and last_id >= job.journal.last_id:
        raise HTTPException(204)  # at which browsers stop asking
    return last_id


@routes.get(
    "/jobs/{id}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(_stream)],
    responses=may(404, 422, 503) | {204: {"description": "The job has ended, and all its events were heard."}},
)
async def events(
    job: Named, service: Serving, last_id: Annotated[int, Depends(_last_id)]
) -> AsyncIterator[ServerSentEvent]:
    """What happened to a job, and what happens: server-sent events, up to its end."""
    reader = job.journal.reader(last_id)
    job.journal.hang(reader.bell)
    try:
        while True:
            reader.bell.clear()
            # Looked at first: what is told meanwhile is read all the same.
            is_last = job.state.is_ended or job.is_removed or service.store.is_closing
            while entries := reader.read():
                for entry in entries:
                    yield ServerSentEvent(raw_data=entry.data, event=entry.kind, id=str(entry.id))
            if is_last:
                return
            await reader.bell.wait()
    finally:
        job.journal.take_down(reader.bell)


@routes.get(
    "/metrics",
    response_class=Response,
    responses=may()
    | {200: {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(service: Serving) -> Response:
    """How the service does."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _shown(job: ServedJob, service: Service, positions: dict[str, int] | None = None) -> JobShown:
    state = job.state
    places = service.store.positions() if positions is None and state.status == "queued" else positions or {}
    return JobShown(
        id=job.id,
        status=state.status,
        filename=state.filename,
        options=choices.shown(state.options),
        created=state.created,
        started=state.started,
        ended=state.ended,
        share=job.share,
        seconds_left=job.seconds_left,
        num_frames=state.num_frames,
        height=state.height,
        width=state.width,
        error=state.error,
        position=places.get(job.id),
        is_resumable=job.is_resumable,
        files=[_file(file) for file in job.files()],
    )


def _file(file: ResultFile) -> FileOfJob:
    return FileOfJob(name=file.name, bytes=file.bytes, kind=file.kind, media_type=file.media_type)
