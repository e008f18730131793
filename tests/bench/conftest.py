"""A bundle with two variants, a small labelled data set under FER2013's split names, and the briefest timing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import SIZE, tiny_encoder, tiny_head, tiny_manifest, tiny_variant

from fer_edge.bench import Timing
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.files import sha256_bytes
from fer_edge.data import Dataset, StillSet

ROWS = 40
LEAKED = 5


def make_bundle(path: Path, *, head_seed: int = 1) -> Bundle:
    """Variants `fp32` and `int8`, the latter with weights of its own, so that some labels change."""
    encoder = tiny_encoder().SerializeToString()
    heads = [tiny_head(seed=head_seed, gain=gain).SerializeToString() for gain in (4.0, 3.0)]
    other = tiny_encoder(seed=7).SerializeToString()
    variants = (
        tiny_variant("fp32", encoder, heads[0]),
        tiny_variant("int8", other, heads[1], parent="fp32", temperature=1.5),
    )
    graphs = {sha256_bytes(graph): graph for graph in (encoder, other, *heads)}
    return create_bundle(path, tiny_manifest(*variants), graphs)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def dataset() -> Dataset:
    """PublicTest and PrivateTest, whose first five images also stand in Training."""
    generator = np.random.default_rng(3)

    def stills(name: str, first: np.ndarray | None = None) -> StillSet:
        images = generator.integers(0, 256, (ROWS, SIZE, SIZE), dtype=np.uint8)
        if first is not None:
            images[: len(first)] = first
        return StillSet(name=name, images=images, labels=generator.integers(0, 7, ROWS), rows=np.arange(ROWS))

    training = stills("Training")
    splits = {name: stills(name, training.images[:LEAKED]) for name in ("PublicTest", "PrivateTest")}
    return Dataset(
        name="fer2013",
        source="fer2013:made-up",
        layout="csv",
        splits={"Training": training, **splits},
        roles={"train": "Training", "choose": "PublicTest", "report": "PrivateTest"},
    )


@pytest.fixture
def brief() -> Timing:
    return Timing(rounds=2, per_round=2, warm_up=1, batch=3, cold_starts=0)
