"""The slots of this machine: a process each, on a device of its own if devices are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dc_rt.job import Task, Worker
from dc_rt.job.events import Listener
from dc_rt.job.worker import environments
from dc_rt.lease import DEFAULT_SECONDS
from dc_rt.models import ModelOptions


class LocalSlots:
    """`dc_rt.batch.slots.Slots` on processes of this machine, whose models stay open from one video to the next.

    Attributes:
        workers: the processes.
    """

    def __init__(
        self,
        models: ModelOptions,
        num_workers: int = 1,
        devices: Sequence[str] = (),
        lease_seconds: float = DEFAULT_SECONDS,
    ) -> None:
        """Nothing is started yet.

        Args:
            models: which model runs, and as what.
            num_workers: processes, at least 1.
            devices: as CUDA numbers or names them, one a process, if not all are to see all.
            lease_seconds: after which another machine may take over a video from here (`dc_rt.lease`).
        """
        self.workers = tuple(Worker(models, each, lease_seconds) for each in environments(num_workers, devices))

    @property
    def num_slots(self) -> int:
        """Processes."""
        return len(self.workers)

    def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
        """Run a task in the process of the slot, which is started if need be."""
        return self.workers[slot].run(task, listener)

    def cancel(self) -> None:
        """End what runs within 2 seconds."""
        for worker in self.workers:
            worker.cancel()

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.close()
