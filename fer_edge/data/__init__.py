"""Labelled faces: FER2013, CK+, class folders and drawn faces, decoded once and memory-mapped afterwards.

- `specs`: ``load_dataset("kind:path?option=value")`` and `READERS`, the table of readers.
- `fer2013`, `ckplus`, `class_folders`, `synthetic`: the readers. To add one, copy `class_folders.py` and register it in
  `specs.READERS`.
- `cache`: the flow of every reader: plan, read, cache. `image_files`: image files and class folders.
- `dataset`: `StillSet` (one split) and `Dataset`. `statistics`: class counts, duplicates, leaks. `sampling`: samples.
- `clips`, `corruptions`: clips made from stills, and degradations of both.
- `faces`: the drawn faces.
"""

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
