"""The LiteRT files of a bundle in a folder of engines, where the provider `litert` finds them by graph hash."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fer_edge import __version__
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import SessionError, require
from fer_edge.core.files import write_atomic
from fer_edge.core.types import Progress, no_progress
from fer_edge.export.job import target_job
from fer_edge.export.target import TargetPlan
from fer_edge.runtime.providers import default_engine_folder

__all__ = ["require_litert", "write_missing"]

_TARGET: Final = "litert"


def require_litert() -> None:
    """Check that LiteRT is installed.

    Raises:
        MissingPackageError: it is not.
    """
    require("ai_edge_litert", needed_by="the provider 'litert'", extra="litert")


def write_missing(
    bundle: Bundle, variants: Iterable[str], *, folder: Path | None = None, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Convert the graphs of variants that a folder lacks, each checked as a target's files are.

    A file that another version of fer-edge wrote is replaced.

    Args:
        bundle: an open bundle.
        variants: names.
        folder: of engines; by default the bundle's ``engines`` where it exists, else the user's cache.

    Returns:
        the files written.

    Raises:
        MissingPackageError: ai-edge-litert or onnx is not installed.
        FerEdgeError: as `export_target`.
    """
    require_litert()
    from fer_edge.runtime.litert_session import LITERT_ENDING

    own = bundle.path / "engines"
    folder = folder or (own if own.is_dir() else default_engine_folder())
    written = []
    for name in variants:
        parts = {f"{part}{LITERT_ENDING}": file.sha256 for part, file in bundle.variant(name).parts.items()}
        if not all(_is_current(folder, sha256) for sha256 in parts.values()):
            with tempfile.TemporaryDirectory(prefix="fer-edge-") as scratch:
                TargetPlan(target_job(bundle, target=_TARGET, variant=name)).write(
                    Path(scratch), progress or no_progress
                )
                for file, sha256 in parts.items():
                    written.append(folder / f"{sha256}{LITERT_ENDING}")
                    write_atomic(written[-1], (Path(scratch) / file).read_bytes())
    return tuple(written)


def _is_current(folder: Path, sha256: str) -> bool:
    from fer_edge.runtime.litert_session import find_litert

    try:
        return f'"fer_edge": "{__version__}"'.encode() in find_litert(folder, graph_sha256=sha256)
    except SessionError:
        return False
