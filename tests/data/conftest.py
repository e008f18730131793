from __future__ import annotations

from pathlib import Path

import pytest
from trees import Fer2013Sample, fer2013_sample


@pytest.fixture
def sample() -> Fer2013Sample:
    return fer2013_sample()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
