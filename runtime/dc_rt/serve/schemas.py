"""What goes over the wire, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Why a request was not granted."""

    error: str = Field(description="What is wrong and what mends it, in one sentence.")


class NewJob(BaseModel):
    """A job of a video that is there already."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="A video, or a folder of images, under a root of the service's.", min_length=1, max_length=4096
    )
    options: dict[str, Any] = Field(default_factory=dict, description="By name, as `GET /options` has them.")


class FileOfJob(BaseModel):
    """A result."""

    name: str = Field(description="As it is asked for.")
    bytes: int
    kind: str = Field(description="The output that it is of; `record` of NAME.json, `folder` of a folder, as a ZIP.")
    media_type: str


class JobShown(BaseModel):
    """A job, as it is now."""

    id: str
    status: Literal["queued", "running", "finished", "failed", "cancelled"]
    filename: str
    options: dict[str, Any]
    created: str = Field(description="A time of UTC in ISO 8601, as all others.")
    started: str | None
    ended: str | None
    share: float | None = Field(description="That is done, from 0 to 1.")
    seconds_left: float | None
    num_frames: int | None = Field(description="Of the results.")
    height: int | None = Field(description="Of the video as it is shown.")
    width: int | None
    error: str | None = Field(description="Why it failed, in one sentence.")
    position: int | None = Field(description="In the queue, from 1.")
    is_resumable: bool = Field(description="Whether a run goes on from where the last one was.")
    files: list[FileOfJob] = Field(description="Of one that has finished.")


class JobsShown(BaseModel):
    """Some of the jobs, the newest first."""

    jobs: list[JobShown]
    next: str | None = Field(description="What `after` is for those that follow; null where there are none.")
    num_queued: int
    num_running: int


class OptionShown(BaseModel):
    """An option that a client may set."""

    name: str
    group: Literal["sampling", "source", "outputs"]
    kind: Literal["integer", "number", "boolean", "choice", "text", "names"]
    default: Any
    least: float | None
    above: float | None
    most: float | None
    instead: float | None = Field(description="A value that stands for no limit, whatever the range.")
    choices: list[str] | None
    choices_help: dict[str, str] | None = None
    help: str


class LimitsShown(BaseModel):
    """How much the service takes."""

    max_upload_bytes: int
    max_frames: int
    max_steps: int
    max_pixels: int
    max_queue: int


class OptionsShown(BaseModel):
    """What a client may choose, and how much the service takes."""

    options: list[OptionShown]
    limits: LimitsShown
    has_roots: bool = Field(description="Whether `POST /jobs` finds anything.")
    suffixes: list[str] = Field(description="Of files that are taken for videos.")


class Health(BaseModel):
    """That the service is there."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """That it can run jobs."""

    ready: Literal[True] = True
