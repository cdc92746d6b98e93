"""One video from file to files: a `Job`, what it tells, and what it keeps on disk until it is done."""

from dc_rt.job.calibration import Calibration, Truth
from dc_rt.job.child_job import ChildJob
from dc_rt.job.deliver import Delivery, deliver
from dc_rt.job.events import (
    AlreadyDone,
    Cancelled,
    Event,
    Failed,
    Finished,
    HeldByAnother,
    Listener,
    ModelOpened,
    Planned,
    Progressed,
    Resumed,
    ShotsFound,
    TakenOver,
    Warned,
    WindowDone,
)
from dc_rt.job.job import Job, JobCancelled
from dc_rt.job.plan import Plan, plan_video
from dc_rt.job.task import Task
from dc_rt.job.worker import Worker, WorkerDied

__all__ = [
    "AlreadyDone",
    "Calibration",
    "Cancelled",
    "ChildJob",
    "Delivery",
    "Event",
    "Failed",
    "Finished",
    "HeldByAnother",
    "Job",
    "JobCancelled",
    "Listener",
    "ModelOpened",
    "Plan",
    "Planned",
    "Progressed",
    "Resumed",
    "ShotsFound",
    "TakenOver",
    "Task",
    "Truth",
    "Warned",
    "WindowDone",
    "Worker",
    "WorkerDied",
    "deliver",
    "plan_video",
]
