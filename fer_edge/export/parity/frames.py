"""Input frames of a parity check: drawn faces, or rows of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import DataError
from fer_edge.core.files import read_json
from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.core.types import Progress, Uint8
from fer_edge.data import load_dataset
from fer_edge.data.dataset import StillSet
from fer_edge.data.faces.stills import synthetic_stills

__all__ = ["ParityFrames", "drawn_frames", "generated_frames", "real_frames"]

_GENERATED: Final = 128
_REAL: Final = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class ParityFrames:
    """Frames, uint8 (N, S, S), and their description."""

    frames: Uint8
    described: str


def drawn_frames(count: int, spec: PreprocessSpec) -> Uint8:
    """Draw faces (seed 0) and prepare them as `spec` states: uint8 (count, S, S)."""
    return prepare_stills(synthetic_stills(count, seed=0)[0], spec)


def generated_frames(bundle: Bundle) -> ParityFrames:
    """Draw faces for a comparison, prepared as the bundle's manifest states."""
    count = max(_GENERATED, bundle.manifest.sequence.window)
    return ParityFrames(
        frames=drawn_frames(count, bundle.manifest.preprocess), described=f"{count} drawn faces (seed 0)"
    )


def real_frames(
    bundle: Bundle, data: str, *, rows: Path | None = None, progress: Progress | None = None
) -> ParityFrames:
    """Read rows of a data set, prepared as the bundle's manifest states.

    Args:
        data: a data spec.
        rows: a sample list, as `fer-edge calibrate --sample-out` writes it: row numbers of a split and their SHA-256.
            By default 512 rows, evenly spaced, of the split to choose on; never of the split to report on.

    Raises:
        DataError: the data or the list cannot be read, or the rows are not those that the list names.
    """
    dataset = load_dataset(data, progress=progress)
    if rows is None:
        split = dataset.split("choose")
        chosen = split.subset(np.unique(np.linspace(0, len(split) - 1, min(_REAL, len(split))).astype(np.int64)))
        described = f"{len(chosen):,} rows of {dataset.name} {chosen.name}"
    else:
        chosen = _listed(dataset.split("train"), rows)
        described = f"the {len(chosen):,} rows of {rows.name} ({dataset.name} {chosen.name})"
    return ParityFrames(
        frames=prepare_stills(np.asarray(chosen.images), bundle.manifest.preprocess), described=described
    )


def _listed(train: StillSet, rows: Path) -> StillSet:
    listed: Any = read_json(rows)
    try:
        split, numbers, sha256 = str(listed["split"]), np.asarray(listed["rows"], np.int64), str(listed["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{rows}: expected a sample list with split, rows and sha256, as calibrate --sample-out writes it ({error})"
        ) from error
    if split != train.name:
        raise DataError(f"{rows}: got rows of {split!r}, expected rows of the training split {train.name!r}")
    chosen = train.subset(np.flatnonzero(np.isin(train.rows, numbers)))
    if chosen.sha256 != sha256:
        raise DataError(
            f"{rows}: got rows with sha256 {chosen.sha256[:12]}..., expected {sha256[:12]}...; give the data set that "
            "the list was made from"
        )
    return chosen
