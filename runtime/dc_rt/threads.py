"""Work ahead of and behind the model, in a thread each, with bounded queues.

An error on either side ends the run with that error, at the next frame and without a hang: whoever waits on a queue
wakes up often enough to see that the other side is gone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05


@contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread, up to `depth` of them ahead of the reader.

    An error of `items` is raised in the reader, after the items before it. Leaving the context stops the thread.
    """
    worker = _Reader(items, depth)
    try:
        yield worker.items()
    finally:
        worker.stop()


class _End:
    """Comes out of a reader's queue after the last item."""


class _Reader(Generic[T]):
    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(items,), name="reader", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[T]:
        while True:
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:  # so that Ctrl-C is heard on every system
                if self._stopped.is_set():
                    return
                continue
            if isinstance(item, _End):
                if self._error is not None:
                    raise self._error from None
                return
            yield item

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self, items: Iterable[T]) -> None:
        try:
            with ExitStack() as stack:
                close = getattr(items, "close", None)
                if close is not None:
                    stack.callback(close)
                for item in items:
                    self._put(item)
                    if self._stopped.is_set():
                        return
        except BaseException as error:
            self._error = error
        finally:
            self._put(_End())

    def _put(self, item: T | _End) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_SECONDS)
                return


class Behind:
    """Runs calls in a thread, in order, up to `depth` of them behind the caller."""

    def __init__(self, depth: int) -> None:
        self._queue: queue.Queue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have `call(*arguments)` run after those before it; raises the error of an earlier one, if there was any."""
        self._put((call, arguments))

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all calls and raise the error of one; after an error of the caller's own, that one prevails."""
        try:
            self._put(None)
        except BaseException:
            if kind is None:
                raise
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _put(self, task: tuple[Callable[..., None], tuple[Any, ...]] | None) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                return self._queue.put(task, timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            call, arguments = task
            try:
                call(*arguments)
            except BaseException as error:
                self._error = error
                return
