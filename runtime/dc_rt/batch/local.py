"""The slots of this machine: a process each, on a device of its own or on its share of the cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dc_rt.cores import num_cores
from dc_rt.job import Task, Worker
from dc_rt.job.events import Listener
from dc_rt.models import ModelOptions
