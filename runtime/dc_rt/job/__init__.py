"""One video from file to files: a `Job`, what it tells, and what it keeps on disk until it is done."""

from dc_rt.job.calibration import Calibration, Truth
from dc_rt.job.child import ChildJob
from dc_rt.job.deliver import Delivery, deliver
from dc_rt.job.events import (
    Cancelled,
    Event,
    Failed,
    Finished,
    Listener,
    Planned,
    Progressed,
    Resumed,
    ShotsFound,
    Warned,
    WindowDone,
)
from dc_rt.job.job import Job, JobCancelled
from dc_rt.job.plan import Plan, plan_video

__all__ = [
    "Calibration",
    "Cancelled",
    "ChildJob",
    "Delivery",
    "Event",
    "Failed",
    "Finished",
    "Job",
    "JobCancelled",
    "Listener",
    "Plan",
    "Planned",
    "Progressed",
    "Resumed",
    "ShotsFound",
    "Truth",
    "Warned",
    "WindowDone",
    "deliver",
    "plan_video",
]
