"""The nodes of a cluster of Ray's as they come and go, and the places on them that run a video each."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dc_rt import __version__
from dc_rt.batch.node import obstacle
from dc_rt.errors import UserError

_LOOK_SECONDS = 2.0  # between two looks at which nodes there are
_EXAMINE_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass(eq=False)
class Place:
    """Room for a video on a node.

    Attributes:
        node: Ray's name of the node.
        address: of the node.
        resources: that Ray is asked for, as options of an actor.
        runner: the actor that runs videos here (`dc_rt.batch.node.Runner`), once there is one.
    """

    node: str
    address: str
    resources: Mapping[str, Any]
    runner: Any = None


class Fleet:
    """All places of the nodes that can run videos. A node that cannot is told of and left out.

    Ray takes a node that has died for alive for some seconds more. So the places of which something was lost are not
    given out again before their node has answered.
    """

    def __init__(self, ray: Any, save_folder: Path, workers: int, tell: Callable[[str], None]) -> None:
        """Look at the nodes, and go on looking until `close`.

        Args:
            ray: the module, connected.
            save_folder: is made, and to be seen by the nodes.
            workers: places on each node, where no node has a GPU.
            tell: is told in lines what becomes of nodes; from any thread.

        Raises:
            UserError: no node can run videos.
        """
        self._ray, self._folder, self._workers, self._tell = ray, save_folder, workers, tell
        self._places: dict[str, list[Place]] = {}
        self._free: list[Place] = []
        self._suspected: list[Place] = []
        self._left_out: dict[str, str] = {}
        self._on_gpus: bool | None = None
        self._is_any_gone = False
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._look()
        if not self._places:
            raise self._no_node()
        self._watch = threading.Thread(target=self._keep_looking, name="nodes", daemon=True)
        self._watch.start()

    @property
    def num_places(self) -> int:
        """Of all nodes that are there."""
        with self._changed:
            return sum(map(len, self._places.values()))

    @property
    def runners(self) -> list[Any]:
        """All actors that run videos."""
        with self._changed:
            return [place.runner for places in self._places.values() for place in places if place.runner is not None]

    def take(self, check: Callable[[], None]) -> Place:
        """A free place, once there is one; `check` is called while it waits, and may raise.

        Raises:
            UserError: no node can run videos, and none has gone that may come back.
        """
        with self._changed:
            while not self._free:
                check()
                if not self._places and not self._is_any_gone:
                    raise self._no_node()
                self._changed.wait(_POLL_SECONDS)
            return self._free.pop(0)

    def give_back(self, place: Place) -> None:
        """Let others have a place."""
        with self._changed:
            if place in self._places.get(place.node, ()):
                self._free.append(place)
                self._changed.notify()

    def lose(self, place: Place) -> None:
        """End what runs in a place, if anything does; others have it once its node answers."""
        if place.runner is not None:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(place.runner)
            place.runner = None
        with self._changed:
            if place in self._places.get(place.node, ()):
                self._suspected.append(place)

    def leave_out(self, place: Place, reason: str) -> None:
        """Have no videos run on the node of a place any more; `reason` says why not, and what mends it."""
        self._leave_out(place.node, place.address, reason)

    def affinity(self, node: str) -> Any:
        """What has Ray do something on a node, and nowhere else."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._watch.join()

    def _keep_looking(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            with suppress(self._ray.exceptions.RayError, OSError):
                self._look()

    def _look(self) -> None:
        """Take in the nodes that have come, let go of those that have gone, and clear those that are suspected."""
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        for node in self._places.keys() - alive:
            self._tell(f"Node {self._places[node][0].address} is gone")
            self._is_any_gone = True
            self._forget(node)
        if self._on_gpus is None:
            self._on_gpus = any(node["Resources"].get("GPU", 0) >= 1 for node in alive.values())
        with self._changed:
            suspected, self._suspected = self._suspected, []
            known = {*self._places, *self._left_out}
        new = {node: places for node in alive.keys() - known if (places := self._places_of(alive[node]))}
        reasons = self._examined(alive.keys() & {*new, *(place.node for place in suspected)})
        for node, reason in reasons.items():
            if reason:
                self._leave_out(node, alive[node]["NodeManagerAddress"], reason)
            elif node in new:
                self._take_in(node, new[node])
        for place in suspected:
            if place.node in reasons:
                self.give_back(place)
            else:
                self.lose(place)

    def _take_in(self, node: str, places: list[Place]) -> None:
        with self._changed:
            self._places[node] = places
            self._free += places
            self._changed.notify_all()
        what = "GPUs" if self._on_gpus else "processes"
        self._tell(f"Node {places[0].address} runs videos; {what}: {len(places)}")

    def _places_of(self, node: Mapping[str, Any]) -> list[Place]:
        """Those that a node has room for."""
        num_cpus, num_gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
        num = num_gpus if self._on_gpus else min(self._workers, num_cpus)
        # Of GPUs there are few: no processor that other work has is to keep one from its video.
        resources = {"num_gpus": 1, "num_cpus": 0} if self._on_gpus else {"num_cpus": max(num_cpus // max(num, 1), 1)}
        return [Place(node["NodeID"], node["NodeManagerAddress"], resources) for _ in range(num)]

    def _examined(self, nodes: Collection[str]) -> dict[str, str]:
        """Why nodes cannot run videos, by node; empty for those that can. Those that have died meanwhile lack."""
        if not nodes:
            return {}
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".dc-rt-", dir=self._folder) as token:
            task = self._ray.remote(obstacle)
            how = {"num_cpus": 0, "max_retries": 0}
            asked = {
                node: task.options(**how, scheduling_strategy=self.affinity(node)).remote(__version__, token.name)
                for node in nodes
            }
            found = {node: self._answer(reference) for node, reference in asked.items()}
        return {node: reason for node, reason in found.items() if reason is not None}

    def _answer(self, reference: Any) -> str | None:
        try:
            return str(self._ray.get(reference, timeout=_EXAMINE_SECONDS))
        except self._ray.exceptions.GetTimeoutError:
            return f"it did not answer within {_EXAMINE_SECONDS:.0f} seconds; look at Ray's log there"
        except self._ray.exceptions.RayTaskError as error:
            said = str(error).strip().splitlines()[-1]
            return f"it cannot import dc-rt {__version__} ({said}); install it in the environment that runs Ray there"
        except self._ray.exceptions.RayError:
            return None

    def _leave_out(self, node: str, address: str, reason: str) -> None:
        with self._changed:
            is_new = node not in self._left_out
            self._left_out[node] = f"{address}: {reason.rstrip('.')}"
        self._forget(node)
        if is_new:
            self._tell(f"Left out is node {self._left_out[node]}.")

    def _no_node(self) -> UserError:
        if not self._left_out:
            return UserError("No node of the cluster has processors for videos; start Ray there with --num-cpus.")
        return UserError(f"No node can run the videos; left out is {next(reversed(self._left_out.values()))}.")

    def _forget(self, node: str) -> None:
        with self._changed:
            places = self._places.pop(node, [])
            self._free = [place for place in self._free if place not in places]
            self._changed.notify_all()
