"""The slots of a cluster: one for each GPU of all nodes, as they come and go.

Ray connects the machines, and is asked for little: to say which nodes there are, and to keep on one, as an actor, a
`dc_rt.batch.node.Runner`. It tries nothing again: the schedule does, which knows of leases and of what was done, and
hears of a lost node as of a process that died. So nothing is run twice, and tries are counted in one place.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dc_rt.batch.connect import connect
from dc_rt.batch.fleet import Fleet, Place
from dc_rt.batch.node import Runner, look
from dc_rt.engine.discovery import choose_engines
from dc_rt.engine.parcel import Parcel
from dc_rt.errors import UserError
from dc_rt.job import JobCancelled, Task
from dc_rt.job.events import Event, Listener, Progressed, from_json
from dc_rt.job.worker import WorkerDied, check_has_no_pipes, outcome_of
from dc_rt.lease import DEFAULT_SECONDS, Held
from dc_rt.models import ModelOptions

_POLL_SECONDS = 0.2
_START_SECONDS = 15.0  # after which it is said that a process is waited for
_PATIENCE_SECONDS = 2.5  # with a run that was cancelled, before its process is killed
_CLOSE_SECONDS = 2.0
_THREADS = 2  # of a runner: one runs, one hears that it is to stop


class ClusterSlots:
    """`dc_rt.batch.slots.Slots` on the nodes of a cluster, in processes whose models stay open between videos."""

    def __init__(
        self,
        address: str,
        models: ModelOptions,
        save_folder: Path,
        workers: int = 1,
        lease_seconds: float = DEFAULT_SECONDS,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Connect, and look at the nodes.

        Args:
            address: as of `dc_rt.batch.connect.connect`.
            models: which model runs, and as what. All videos run on one engine set: the preferred one of those here.
            save_folder: is made, and to be seen by all nodes that run videos.
            workers: processes on each node, which share its processors, where no node has a GPU.
            lease_seconds: after which a video of a node that is gone may be taken over.
            tell: is told in lines which nodes there are, and what becomes of them; from any thread.

        Raises:
            UserError: there is no such cluster, no engine set, or no node that can run videos.
        """
        self._parcel = Parcel.of(choose_engines(Path(models.engines) if models.engines else None)[0])
        self._models, self._lease_seconds, self._tell = models, lease_seconds, tell
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._cancelled = threading.Event()
        self._ray = connect(address)
        try:
            self._fleet = Fleet(self._ray, save_folder.absolute(), workers, tell)
        except BaseException:
            self._ray.shutdown()
            raise

    @property
    def num_slots(self) -> int:
        """Videos that the nodes which are there can run at once; at least 1."""
        return max(self._fleet.num_places, 1)

    def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
        """Run a task wherever there is a free place, once there is one; raises as `Slots.run` does."""
        check_has_no_pipes(Path(task.video), task.options.outputs)
        sent = replace(task, video=_absolute(task.video), save_folder=_absolute(task.save_folder))
        place = self._place_for(sent.video)
        try:
            # The end is among what is kept; what was progress, of a long video, is very much.
            told = [event for event in self._events(place, sent, listener) if not isinstance(event, Progressed)]
        except BaseException as error:
            self._fleet.lose(place)
            if isinstance(error, self._ray.exceptions.RayTaskError):
                raise RuntimeError(str(error.cause)) from error
            if isinstance(error, self._ray.exceptions.RayError):
                raise RuntimeError(f"node {place.address} was lost, or Ray's process there has died") from error
            raise
        self._fleet.give_back(place)
        try:
            files = outcome_of(told)
        except WorkerDied:
            self._check_not_cancelled()  # or else it was killed for that
            raise
        return [Path(task.save_folder, file.relative_to(sent.save_folder)) for file in files]

    def cancel(self) -> None:
        """End what runs within seconds, on every node; what was done is kept."""
        self._cancelled.set()

    def close(self) -> None:
        """End all processes that were started on the nodes, and leave the cluster."""
        self._fleet.close()
        runners = self._fleet.runners
        endings = [runner.close.remote() for runner in runners]
        if endings:
            self._ray.wait(endings, num_returns=len(endings), timeout=_CLOSE_SECONDS)
        for runner in runners:
            self._ray.kill(runner)
        self._ray.shutdown()

    def _events(self, place: Place, task: Task, listener: Listener) -> Iterator[Event]:
        """What happens on the node, as it comes."""
        stream = place.runner.run.options(num_returns="streaming").remote(task.as_json())
        cancelled_at: float | None = None
        while True:
            ready, _ = self._ray.wait([stream], timeout=_POLL_SECONDS)
            if self._cancelled.is_set() and cancelled_at is None:
                place.runner.cancel.remote()
                cancelled_at = time.monotonic()
            if cancelled_at is not None and time.monotonic() - cancelled_at > _PATIENCE_SECONDS:
                raise JobCancelled
            if not ready:
                continue
            try:
                reference = next(stream)
            except StopIteration:
                return
            for event in map(from_json, self._ray.get(reference)):
                listener(event)
                yield event

    def _place_for(self, video: str) -> Place:
        """A place that is ready to run a video."""
        seen = look(video)
        while True:
            place = self._fleet.take(self._check_not_cancelled)
            try:
                self._make_ready(place)
                if self._answer(place.runner.look.remote(video)) == seen:
                    return place
                where = "put the videos on storage that all nodes share, under the same path"
                self._fleet.leave_out(place, f"it does not see {video} as it is here; {where}")
            except UserError as error:
                self._fleet.leave_out(place, error.sentence)
            except OSError as error:
                self._fleet.leave_out(place, f"it cannot keep the engine set ({error}); see to its disk")
            except self._ray.exceptions.RayError:  # another place may do
                self._fleet.lose(place)
            except BaseException:
                self._fleet.lose(place)
                raise

    def _make_ready(self, place: Place) -> None:
        """Start the runner of a place, unless it is there, and give its node the engine set."""
        if place.runner is not None:
            return
        place.runner = self._start(place)
        if not self._ray.wait([place.runner.look.remote("")], timeout=_START_SECONDS)[0]:
            self._tell(f"Node {place.address} has other work of the cluster to do; a video waits for its end")
        with self._sending[place.node]:
            if missing := self._missing(place):
                began = time.monotonic()
                for piece in self._parcel.pieces(missing):
                    self._answer(place.runner.write.remote(*piece))
                self._answer(place.runner.finish.remote())
                size, seconds = self._parcel.num_bytes / 1e6, time.monotonic() - began
                self._tell(f"The engine set was sent to node {place.address}: {size:.1f} MB in {seconds:.1f} s")

    def _start(self, place: Place) -> Any:
        """Nothing is restarted or tried again by Ray."""
        how = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": _THREADS}
        runner = self._ray.remote(Runner).options(
            **place.resources, **how, scheduling_strategy=self._fleet.affinity(place.node)
        )
        return runner.remote(_absolute(""), self._parcel, self._models, self._lease_seconds)

    def _missing(self, place: Place) -> tuple[str, ...]:
        """The files of the engine set that a node lacks; the node waits for them, if there are any."""
        while True:
            try:
                missing: tuple[str, ...] = self._answer(place.runner.missing.remote())
                return missing
            except Held:  # another batch sends it there
                time.sleep(_POLL_SECONDS)
                self._check_not_cancelled()

    def _answer(self, reference: Any) -> Any:
        """What a call on a node gives or raises; raises `JobCancelled` once all is cancelled."""
        while not self._ray.wait([reference], timeout=_POLL_SECONDS)[0]:
            self._check_not_cancelled()
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def _check_not_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
