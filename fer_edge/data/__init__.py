"""Labelled faces: FER2013, CK+, class-per-folder sets and generated faces, decoded once and mapped afterwards."""

from __future__ import annotations

from fer_edge.data.report import DatasetReport, SplitReport, describe, leaked_rows
from fer_edge.data.source import load_dataset
from fer_edge.data.stills import ROLES, Dataset, Role, StillSet

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
