"""Do the same with many things in a few threads, and lose nothing of what is done when it is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(
    work: Callable[[T], R], items: Iterable[T], *, threads: int, name: str
) -> Generator[R, None, None]:
    """Each item's result as it becomes known, of as many at once as there are threads; `items` is read lazily.

    When the consumer stops, no further item is begun. Nor when this is interrupted or `work` raises: what is
    running then is waited for and yielded before the error is raised. A second interruption is raised at
    once. `name` is what the threads are called.
    """
    waiting = iter(items)
    running: set[Future[R]] = set()
    interruption: BaseException | None = None
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:

        def begin_next() -> None:
            # Where an item could be None, `next` with a default would not tell it from the end.
            for item in waiting:
                running.add(pool.submit(work, item))
                return

        for _ in range(threads):
            begin_next()
        while running:
            try:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as error:
                if interruption is not None:
                    raise
                interruption, waiting = error, iter(())
                continue
            running -= done
            # What raised comes first, so that nothing more is begun after it.
            for raised in filter(None, (future.exception() for future in done)):
                interruption, waiting = interruption or raised, iter(())
            for future in done:
                if future.exception() is None:
                    begin_next()
                    yield future.result()
    if interruption is not None:
        raise interruption
