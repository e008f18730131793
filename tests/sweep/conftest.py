"""The smallest training preset, a report of made-up points, and a note taker that can interrupt the work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fer_edge.bench.peers import Peer, PeerTable
from fer_edge.sweep.grid import Axes
from fer_edge.sweep.report import Measurement, SweepPoint, SweepReport, mark_front, peer_points

PRESET = """
precision = "fp32"

[model]
input_size = 16
channels = [16, 16, 16, 16]
blocks = [[], [], [], []]
stem_kernel = 3
token_grid = 2
spatial_hidden = 16
temporal_hidden = 16
attention_size = 8
dense_growth = 8

[preprocess]
size = 16
median = 0

[optimiser]
epochs = 2
batch_size = 32
warmup_epochs = 0.5
ema_decay = 0.8

[sequence]
window = 4
clip_frames = 6
context_epochs = 1
classifier_epochs = 1
batch_size = 64
"""

BRIEF = """
[timing]
rounds = 1
per_round = 2
warm_up = 1
batch = 2
"""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(PRESET)
    return tmp_path / "small.toml"


class Notes:
    """Collects notes, and interrupts the work at one that contains `until`."""

    def __init__(self, *, until: str | None = None) -> None:
        self.lines: list[str] = []
        self._until = until

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        if self._until is not None and self._until in text:
            raise KeyboardInterrupt


def point(network: str, x: float, top1: float, **changed: Any) -> SweepPoint:
    given: dict[str, Any] = {
        "network": network,
        "sha256": "0" * 64,
        "variant": "int8",
        "precision": "int8",
        "provider": "cpu",
        "provider_version": "cpu 1.0",
        "axes": Axes(preset=network, width=1.0),
        "x": x,
        "x_quartiles": (0.9 * x, 1.1 * x),
        "x_of_minima": 0.98 * x,
        "ms_p50": 2 * x,
        "graph_bytes": 1_500_000,
        "parameters": 400_000,
        "macs": None,
        "top1": top1,
        "top1_without_leaked": top1 - 0.01,
        "ece": 0.02,
    }
    return SweepPoint(**{**given, **changed})


def peer(name: str, x: float, public: float | None, private: float | None = None) -> Peer:
    return Peer(
        name=name,
        source="its shop",
        x=x,
        public_top1=public,
        private_top1=private,
        parameters=57_000,
        input=(48, 48, 1),
    )


def peer_table(*peers: Peer) -> PeerTable:
    return PeerTable(
        measured="elsewhere",
        date="2026",
        data="FER2013",
        machine="a core",
        reference_cnn_ms_min=1.9,
        note="",
        peer=peers,
    )


def made_up(points: Iterable[SweepPoint], peers: Iterable[Peer] = (), **changed: Any) -> SweepReport:
    marked = mark_front(points)
    given: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "command": "fer-edge sweep zoo",
        "recipe_name": "zoo",
        "recipe": {"bundles": ["*"]},
        "device": {"cpu": "some processor", "cores": 2},
        "measurements": (
            Measurement(
                provider="cpu",
                created="2026-01-02T03:04:05+00:00",
                reference_ms_p50=2.0,
                rounds=20,
                per_round=10,
                load_at_start=0.1,
            ),
        ),
        "role": "choose",
        "dataset": "fer2013",
        "split": "PublicTest",
        "split_sha256": "ab",
        "n": 3589,
        "threads": 1,
        "points": marked,
        "peers": peer_points(peer_table(*peers), marked, "choose"),
    }
    return SweepReport(**{**given, **changed})


FAMILY = (
    point("nano", 0.15, 0.68),
    point("small", 0.33, 0.71),
    point("small", 1.1, 0.712, variant="fp32", precision="fp32"),
    point("edge", 0.58, 0.683),
    point("full", 2.4, 0.74, variant="fp32", precision="fp32", provider="openvino"),
)
OTHERS = (
    peer("tiny CNN", 0.10, 63.1, 64.6),
    peer("mini CNN", 0.16, 65.5, 65.5),
    peer("mini CNN, quantized", 0.17, 65.4, 65.8),
    peer("big CNN", 0.65, 65.6, 66.9),
    peer("poor CNN", 5.7, 43.9, 43.0),
    peer("without a score", 2.6, None),
)
