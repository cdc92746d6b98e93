"""Work ahead of and behind the model, in a thread each, with bounded queues.

An error on either side ends the run with that error, at the next frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from typing import Any, Self, TypeVar

from dc_rt.cores import yield_to_the_model

T = TypeVar("T")

_END: Any = object()


@contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread, up to `depth` of them ahead of the reader.

    An error of `items` is raised in the reader, after the items before it. Leaving the context stops the thread.
    """
    source: Any = iter(items)
    with (
        closing(source) if hasattr(source, "close") else nullcontext(),
        ThreadPoolExecutor(1, "reader", yield_to_the_model) as pool,
    ):
        coming = deque(pool.submit(next, source, _END) for _ in range(depth))

        def read() -> Iterator[T]:
            while coming and (item := coming.popleft().result()) is not _END:
                coming.append(pool.submit(next, source, _END))
                yield item

        try:
            yield read()
        finally:
            coming.clear()
            pool.shutdown(cancel_futures=True)


class Behind:
    """Runs calls in a thread, in order, up to `depth` of them behind the caller."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, "writer")
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have `call(*arguments)` run after those before it; raises the error of an earlier one, if there was any."""
        while self._pending and (self._pending[0].done() or len(self._pending) > self._depth):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, call, arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all calls and raise the error of one; after an error of the caller's own, that one prevails."""
        self._pool.shutdown()
        if kind is None:
            for call in self._pending:
                call.result()

    def _run(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except BaseException:
            self._failed = True
            raise
