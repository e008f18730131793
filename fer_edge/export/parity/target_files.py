"""A target's files, written to a temporary folder for a parity check."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_edge.core.bundle import Bundle
from fer_edge.core.types import Progress, no_progress
from fer_edge.export.parity.stages import TargetFiles
from fer_edge.export.target import plan_target

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
    """Write a target as `export_target` does, and remove its files at the end.

    Raises:
        InputError, BundleError, SessionError, MissingPackageError, GateError: as `export_target`.
    """
    plan = plan_target(bundle, target=target, variant=variant, settings=settings)
    if plan.errors:
        raise plan.errors[0]
    job, backend = plan.job, plan.backend
    with tempfile.TemporaryDirectory(prefix="fer-edge-") as name:
        folder = Path(name)
        backend.write(folder, progress or no_progress)
        runs = backend.parity is None and not backend.not_run
        yield TargetFiles(
            name=job.name,
            variant=job.variant,
            graphs=job.graphs,
            open=(lambda part: backend.open(folder, part)) if runs else None,
            not_run=backend.not_run or "the backend compares the files itself",
            frames=job.shapes["encoder"]["frames"].max[0],
            windows=job.shapes["head"]["features"].max[0],
            exact=job.precision in ("variant", "fp32") and bundle.variant(job.variant).precision == "fp32",
        )
