"""Work in a process of its own: a fresh Python calls our functions.

A child shares no threads, no memory and no GPU with others, its largest memory is its own, and it may die. A call is
pickled to its standard input, a function by its name; its result, or what went wrong, to its standard output: of a
generator, what it yields, one by one. What it prints goes to standard error as it comes. State stays in the child's
modules, from call to call.
"""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

from dc_rt.errors import UserError

R = TypeVar("R")


class ChildFailed(Exception):
    """A call did not come to its end; says why in a sentence.

    Attributes:
        how: "failed", as the function raised an error; "died", as its process did; or "hung".
    """

    def __init__(self, sentence: str, how: Literal["failed", "died", "hung"]) -> None:
        super().__init__(sentence)
        self.how = how


class Child:
    """A process that calls functions one by one, and is begun anew where it died or hung.

    Args:
        seconds: that a call may take; any number unless given.
        environment: variables beside those of this process.
        leads: whether the processes that it starts in its turn end with it where it takes too long. It is then in a
            group of its own, which Ctrl-C does not reach.
    """

    def __init__(
        self, seconds: float | None = None, environment: Mapping[str, str] | None = None, leads: bool = False
    ) -> None:
        self._seconds = seconds
        self._environment = os.environ | (environment or {})
        self._leads = leads and hasattr(os, "killpg")
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """What `function(*arguments)` gives in the child; it must be one that a module has by its name.

        Raises:
            ChildFailed: it raised an error, its process ended, or it took too long.
        """
        results = list(self._answers(function, arguments, streamed=False))
        return cast("R", results[0])

    def each(self, function: Callable[..., Iterator[R]], *arguments: Any) -> Iterator[R]:
        """What the generator `function(*arguments)` yields in the child, each as it comes.

        Raises:
            ChildFailed: as `call`, also when some of it has come; the seconds of a call are those of all of it.
        """
        return self._answers(function, arguments, streamed=True)

    def _answers(self, function: Callable[..., Any], arguments: tuple[Any, ...], streamed: bool) -> Iterator[Any]:
        """All results of a call: one, or where it is streamed any number."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._seconds or 0, self._kill, [process])
        timer.daemon = True
        if self._seconds is not None:
            timer.start()
        try:
            pickle.dump((_name(function), arguments, streamed), process.stdin)
            process.stdin.flush()
            while True:
                result, error, ended = pickle.load(process.stdout)
                if error or ended:
                    break
                yield result
        except (OSError, EOFError, pickle.UnpicklingError):  # it has ended, between two calls or within an answer
            self._process = None
            status = process.wait()
            if timer.finished.is_set():
                raise ChildFailed(f"it took over {self._seconds:.0f} s", "hung") from None
            raise ChildFailed(f"its process ended with status {status}", "died") from None
        finally:
            timer.cancel()
        if error:
            raise ChildFailed(error, "failed")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, "-m", "bench.children"]
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=self._leads,
            )
        return self._process

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if self._leads:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()

    def close(self) -> None:
        """Let the process end, which it does between two calls."""
        if self._process:
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error and self._process:
            self._kill(self._process)
        self.close()


def apart(function: Callable[..., R], *arguments: Any) -> R:
    """What `function(*arguments)` gives in a process of its own, which ends with it; raises `ChildFailed`."""
    with Child() as child:
        return child.call(function, *arguments)


def each_apart(function: Callable[..., Iterator[R]], *arguments: Any, seconds: float) -> Iterator[R]:
    """What the generator `function(*arguments)` yields in a process of its own, each as it comes.

    After so many seconds it is killed, with all processes that it has started. Raises `ChildFailed`.
    """
    with Child(seconds, leads=True) as child:
        yield from child.each(function, *arguments)


def call_each(
    function: Callable[..., R], calls: Sequence[tuple[Any, ...]], workers: int, devices: Sequence[str] = ()
) -> Iterator[R | Exception]:
    """Call a function with each of several tuples of arguments: the results, or the exceptions raised, in order.

    As many children as `workers` do it side by side, and are given the `devices` (of CUDA_VISIBLE_DEVICES) in turn.
    Without these, a single worker is this process.
    """

    def outcome(give: Callable[..., R], *arguments: Any) -> R | Exception:
        try:
            return give(*arguments)
        except Exception as error:
            return error

    if workers == 1 and not devices:
        yield from (outcome(function, *arguments) for arguments in calls)
        return
    idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
    children = [
        Child(environment={"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else None)
        for number in range(workers)
    ]
    for child in children:
        idle.put(child)

    def work(arguments: tuple[Any, ...]) -> R | Exception:
        child = idle.get()
        try:
            return outcome(child.call, function, *arguments)
        finally:
            idle.put(child)

    pool = ThreadPoolExecutor(workers)
    futures: list[Future[R | Exception]] = [pool.submit(work, arguments) for arguments in calls]
    try:
        yield from (future.result() for future in futures)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.close()


def sentence(error: BaseException) -> str:
    """What went wrong, in a line."""
    if isinstance(error, UserError | ChildFailed):
        return str(error)
    return f"{type(error).__name__}: {(str(error).strip() or repr(error)).splitlines()[0]}"


def _name(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__":  # run as `python -m`: a child knows it by its name
        module = sys.modules[module].__spec__.name  # type: ignore[union-attr]
    return f"{module}:{function.__qualname__}"


def _serve() -> None:
    """The child: call what it is asked to until nothing more comes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(EOFError):
        while True:
            name, arguments, streamed = pickle.load(sys.stdin.buffer)
            for answer in _outcomes(name, arguments, streamed):
                answers.write(answer)
                answers.flush()


def _outcomes(name: str, arguments: tuple[Any, ...], streamed: bool) -> Iterator[bytes]:
    """Triples, pickled: a result, what went wrong, and whether there is no more to come."""
    try:
        module, name = name.split(":")
        found = getattr(importlib.import_module(module), name)(*arguments)
        for result in found if streamed else [found]:
            yield pickle.dumps((result, None, False))
        yield pickle.dumps((None, None, True))
    except (Exception, SystemExit) as error:
        yield pickle.dumps((None, sentence(error), True))


if __name__ == "__main__":
    # Under its own name: an error that another module raises is then the one that is known here.
    from bench import children

    children._serve()
