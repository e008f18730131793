"""The whole chain, by the commands of the README, on 2,000 faces of FER2013: from training to an annotated video."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_edge.core.bundle import Bundle
from fer_edge.data import load_dataset

pytestmark = [pytest.mark.data, pytest.mark.train, pytest.mark.slow]
ROWS = {"Training": 1400, "PublicTest": 300, "PrivateTest": 300}

# A model of one short epoch is close to guessing: the gate's mechanism is what is run here, not its shipped limits.
LENIENT = """
[sample]
size = 128

[gate]
max_top1_drop = 0.2
max_flip_rate = 0.5
max_ece_rise = 0.3
min_agreement = 0.5
agreement_rows = 400
"""


def fer_edge(*arguments: object, ok: bool = True) -> str:
    """Run a command as a user does; its stdout."""
    command = [sys.executable, "-W", "ignore", "-m", "fer_edge", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout if ok else done.stderr


@pytest.fixture(scope="module")
def subset(fer2013_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """2,000 rows in the shape of the Kaggle CSV."""
    dataset = load_dataset(f"fer2013:{fer2013_path}")
    path = tmp_path_factory.mktemp("fer2013") / "fer2013.csv"
    with path.open("w") as handle:
        handle.write("emotion,pixels,Usage\n")
        for usage, count in ROWS.items():
            stills = dataset.splits[usage]
            for label, image in zip(stills.labels[:count], stills.images[:count], strict=True):
                handle.write(f"{label},{' '.join(map(str, np.ravel(image)))},{usage}\n")
    return f"fer2013:{path}"


def test_the_chain(subset: str, tmp_path: Path) -> None:
    info = json.loads(fer_edge("data", subset, "--json"))
    assert sum(split["n"] for split in info["splits"]) == 2000

    short = ["--set", "optimiser.batch_size=128", "--set", "optimiser.ema_decay=0.5"]
    quick = [
        "--set",
        "sequence.copies=2",
        "--set",
        "sequence.context_epochs=1",
        "--set",
        "sequence.classifier_epochs=2",
    ]
    run, pruned, bundle = tmp_path / "runs/edge", tmp_path / "runs/edge-pruned", tmp_path / "bundles/edge"
    fer_edge("train", "edge", "--data", subset, "--out", run, "--set", "optimiser.epochs=2", *short, *quick, "--json")
    said = json.loads(
        fer_edge("prune", run, "--macs", "0.5", "--data", subset, "--set", "optimiser.epochs=1", *short, "--json")
    )
    assert said["pruning"]["macs_after"] <= 0.5 * said["pruning"]["macs_before"]

    fer_edge("export", pruned, "--out", bundle)
    before = Bundle.open(bundle).sha256
    strict = ["--set", "gate.max_flip_rate=0.0", "--set", "gate.min_agreement=1.0"]
    refused = fer_edge("calibrate", bundle, "--data", subset, "--set", "gate.agreement_rows=400", *strict, ok=False)
    assert "error:" in refused
    assert Bundle.open(bundle).sha256 == before

    recipe = tmp_path / "lenient.toml"
    recipe.write_text(LENIENT)
    fer_edge("calibrate", bundle, "--data", subset, "--recipe", recipe)
    variants = {variant.name: variant for variant in Bundle.open(bundle).manifest.variants}
    assert set(variants) == {"fp32", "int8", "int8-trt"}
    sizes = {name: sum(file.size_bytes for file in variant.graphs) for name, variant in variants.items()}
    assert sizes["fp32"] > 3 * sizes["int8"]

    fer_edge("verify", bundle)
    fer_edge("export", bundle, "--target", "auto", "--out", tmp_path / "target")
    assert (tmp_path / "target/target.json").is_file()

    result, clip, annotated = tmp_path / "bench.json", tmp_path / "clip.mp4", tmp_path / "out.mp4"
    fer_edge("bench", bundle, "--data", subset, "--quick", "--json", result)
    measured = json.loads(result.read_text())["variants"]
    assert {variant["name"] for variant in measured} == set(variants)
    assert all(variant["accuracy"]["n"] == ROWS["PublicTest"] for variant in measured)

    _write_clip(clip)
    fer_edge("run", bundle, "--source", clip, "--annotate", annotated)
    video = cv2.VideoCapture(str(annotated))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12


def _settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def _write_clip(path: Path) -> None:
    from fer_edge.data.faces import synthetic_frames

    frames = [each.image for each in synthetic_frames("happy", frames=12, frame_rate=12.0, seed=1)]
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
