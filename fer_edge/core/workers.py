"""Processes that share a piece of work and say how it goes; interrupted, they are ended and not waited for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Workers", "open_workers"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """A pool, each process's share of the cores, and the queue in which processes say how it goes."""

    pool: concurrent.futures.ProcessPoolExecutor
    threads: int
    events: Any


@contextlib.contextmanager
def open_workers(
    jobs: int, hear: Callable[[Any], None], *, begin: Callable[..., None] | None = None, given: tuple[Any, ...] = ()
) -> Iterator[Workers]:
    """A pool of `jobs` fresh processes.

    Args:
        jobs: processes at the same time.
        hear: called, in a thread of its own, with everything that is put into the queue.
        begin: called in every process at its start with (*given, threads, events).
        given: what `begin` is given besides.
    """
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        events = manager.Queue()
        listener = threading.Thread(target=_listen, args=(events, hear), daemon=True)
        listener.start()
        threads = max(1, (os.cpu_count() or 1) // jobs)
        initargs = () if begin is None else (*given, threads, events)
        pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=spawn, initializer=begin, initargs=initargs)
        try:
            yield Workers(pool=pool, threads=threads, events=events)
            pool.shutdown()
        except BaseException:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
        finally:
            events.put(None)
            listener.join(timeout=5)


def _listen(events: Any, hear: Callable[[Any], None]) -> None:
    while (event := events.get()) is not None:
        hear(event)
