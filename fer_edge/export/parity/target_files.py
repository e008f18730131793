"""A target's files, written to be looked at by the parity chain and then thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_edge.core.bundle import Bundle
from fer_edge.core.types import Progress
from fer_edge.export.job import target_job
from fer_edge.export.parity.stages import TargetFiles
from fer_edge.export.preflight import require_preflight
from fer_edge.export.target import WRITERS

__all__ = ["written_target"]


@contextmanager
def written_target(
    bundle: Bundle,
    *,
    target: str,
    variant: str | None = None,
    settings: Iterable[str] = (),
    progress: Progress | None = None,
) -> Iterator[TargetFiles]:
    """Write a target as `export_target` does, but nothing of it stays.

    Raises:
        InputError, BundleError, SessionError, MissingPackageError: as `export_target`.
        GateError: pre-flight refuses a graph.
    """
    say = progress or (lambda _text, _done, _total: None)
    job = target_job(bundle, target=target, variant=variant, settings=settings)
    require_preflight(job)
    with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
        written = WRITERS[job.recipe.kind]().write(job, Path(folder), say)
        yield TargetFiles(
            name=job.name,
            variant=job.variant,
            graphs=job.graphs,
            open=written.open,
            not_run=written.not_run,
            frames=job.shapes["encoder"]["frames"].max[0],
            windows=job.shapes["head"]["features"].max[0],
            exact=job.precision in ("variant", "fp32") and bundle.variant(job.variant).precision == "fp32",
        )
