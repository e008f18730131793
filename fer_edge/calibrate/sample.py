"""Rows to calibrate on and rows to compare on: seeded, stratified, disjoint, hashed."""

from __future__ import annotations

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.data.sample import RowSample, draw_sample
from fer_edge.data.stills import Dataset

__all__ = ["RowSample", "draw_agreement_rows", "draw_sample"]


def draw_agreement_rows(dataset: Dataset, *samples: RowSample, size: int, seed: int) -> RowSample:
    """Draw training rows none of whose images stands in a sample, pixel for pixel.

    Raises:
        InputError: fewer such rows are left.
    """
    train = dataset.split("train")
    known = {image.tobytes() for sample in samples for image in sample.stills.images}
    outside = np.flatnonzero([image.tobytes() not in known for image in train.images])
    if size > len(outside):
        raise InputError(
            f"{dataset.source}: {len(outside):,} rows of {train.name} lie outside the calibration sample, fewer than "
            f"the {size:,} to compare labels on; give --set gate.agreement_rows={max(1, len(outside))}"
        )
    random = np.random.default_rng(seed)
    rows = train.subset(np.sort(random.choice(outside, size, replace=False)))
    return RowSample(dataset=dataset.name, dataset_sha256=dataset.sha256, seed=seed, stills=rows)
