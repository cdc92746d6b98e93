"""Where the videos of a batch are run: the one thing that the schedule asks of this machine, or of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dc_rt.job import Task
from dc_rt.job.events import Listener


class Slots(Protocol):
    """Places that run one video each at a time: processes of this machine, or of a cluster.

    The schedule has a thread for each, which calls `run` with its own number, and nobody else does with that number.
    """

    @property
    def num_slots(self) -> int:
        """How many there are now, one at least. Where it falls, `run` waits for one to be free; where it grows, the
        schedule begins to use the new ones."""

    def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
        """Run a task to its end, or to where it cannot go on. It blocks, and leaves the slot fit for the next task.

        Args:
            slot: which one, from 0 on.
            task: what to do. Its results must be there when this returns, for this process to see.
            listener: is told of all events of the job, one at a time, in whatever thread; `AlreadyDone` where the
                results were there before.

        Returns:
            The files and folders that were written, as `Job.run` has them; those that are there, after `AlreadyDone`.

        Raises:
            UserError: the video cannot be run, and would not the next time: it is not tried again.
            RuntimeError, OSError: a process or a machine was lost, a disk refused, or a bug: it may be tried again,
                and is resumed then.
            Held: another batch is at this video; it is asked for again later.
            LeaseLost: another batch has taken it over meanwhile; likewise.
            JobCancelled: `cancel` was called.
        """

    def cancel(self) -> None:
        """End all that runs within 2 seconds, from any thread; what was done is kept.

        It is called again until no `run` is under way: one that begins in this instant ends by the next call.
        """

    def close(self) -> None:
        """Give everything back: processes, models, connections. No `run` is under way; called once."""
