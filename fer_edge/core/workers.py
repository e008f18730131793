"""A pool of worker processes that report events to their parent; an interrupt terminates them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fer_edge.core.machine import usable_cpus
from fer_edge.core.types import Progress

__all__ = ["Workers", "open_workers", "sent_progress"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """A pool, the CPUs of each process, and the queue for the events of the processes."""

    pool: concurrent.futures.ProcessPoolExecutor
    threads: int
    events: Any


@contextlib.contextmanager
def open_workers(jobs: int, hear: Callable[[Any], None]) -> Iterator[Workers]:
    """Start a pool of `jobs` spawned processes; `hear` is called in a separate thread with every event."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        events = manager.Queue()
        listener = threading.Thread(target=_listen, args=(events, hear), daemon=True)
        listener.start()
        threads = max(1, usable_cpus() // jobs)
        pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=spawn)
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


def sent_progress(events: Any) -> Progress:
    """Return a progress callback for a worker: it sends (what, done, total), at most once a second and at the end."""
    last_s = 0.0

    def send(what: str, done: int, total: int) -> None:
        nonlocal last_s
        now = time.monotonic()
        if done == total or now - last_s >= 1:
            last_s = now
            events.put((what, done, total))

    return send


def _listen(events: Any, hear: Callable[[Any], None]) -> None:
    while (event := events.get()) is not None:
        hear(event)
