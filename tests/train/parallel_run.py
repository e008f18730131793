"""A whole training under a process group, run by `test_runs` with two processes: every epoch ends in all of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from training import ON_CPU, small_dataset, small_recipe

from fer_edge.train.train import train_model

if __name__ == "__main__":
    train_model(small_recipe(epochs=3), small_dataset(), Path(sys.argv[1]) / "run", options=ON_CPU)
