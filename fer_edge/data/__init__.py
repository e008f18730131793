"""Labelled faces: FER2013, CK+, class-per-folder sets and generated faces, decoded once and mapped afterwards."""

from __future__ import annotations

from fer_edge.data.dataset import ROLES, Dataset, Role, StillSet
from fer_edge.data.specs import load_dataset
from fer_edge.data.statistics import DatasetReport, SplitReport, describe, leaked_rows

__all__ = [
    "ROLES",
    "Dataset",
    "DatasetReport",
    "Role",
    "SplitReport",
    "StillSet",
    "describe",
    "leaked_rows",
    "load_dataset",
]
