"""Measure the limits of a face crop's quality on FER2013, for the recipe `fer_edge/runtime/recipes/quality.toml`.

    python bench/quality.py --data fer2013:PATH --write --json bench/results/DEVICE/live/quality.json

A limit is a quantile of its measure over the Training faces in which voters see an expression; the shortest side is the
size to which faces may shrink before the recogniser loses accuracy. The result counts what the limits reject: faces of
PublicTest, made pictures without a face (`fer_edge/data/negatives.py`), whole camera frames, and drawn faces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.cli.console import progress
from fer_edge.core.crowd import first_choice
from fer_edge.core.files import write_atomic, write_json
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Array, Int64, Uint8
from fer_edge.data import load_dataset
from fer_edge.data.faces import synthetic_stills
from fer_edge.data.faces.scenes import cabin
from fer_edge.data.negatives import NEGATIVES, make_negatives
from fer_edge.runtime import Network, Recognizer, prepare_stills
from fer_edge.runtime.quality import (
    NOT_A_FACE,
    QualityLimit,
    QualityLimits,
    face_thumbnails,
    judge_crop,
    measure_crop,
)

RECIPE = Path(__file__).parents[1] / "fer_edge/runtime/recipes/quality.toml"
AXES = 8
TYPICAL = 0.05  # of the faces are less good than `good`
BESIDE_HEAD = 0.1  # of these shares where the head `crowd` judges too, which itself rejects 1 % of the faces
SIZES = (48, 40, 32, 28, 24, 20, 18, 16, 14, 12, 10)
LOST_GOOD, LOST_REJECT = 0.01, 0.05  # top-1 lost at these sizes
MADE = 300
BATCH = 128

# Measure, reason, whether larger is better, and the share of the Training faces beyond the limit.
LIMITS = (
    ("bright_end", "dark", True, 0.0005),
    ("dark_end", "bright", False, 0.0005),
    ("contrast", "flat", True, 0.0005),
    ("gradient", "blurred", True, 0.001),
    ("detail", "blurred", True, 0.001),
    ("symmetry", "turned away", True, 0.0005),
    ("plain", "covered", False, 0.0005),
    ("gradient", NOT_A_FACE, False, 0.0005),
    ("strangeness", NOT_A_FACE, False, 0.002),
)


def face_space(faces: Uint8) -> QualityLimits:
    """Compute the mean thumbnail of faces and their mirror images, and the directions in which they differ most."""
    thumbnails = face_thumbnails([*faces, *faces[:, :, ::-1]])
    mean = thumbnails.mean(axis=0)
    axes = np.linalg.eigh(np.cov((thumbnails - mean).T))[1][:, ::-1][:, :AXES].T
    axes *= np.sign(axes[np.arange(AXES), np.abs(axes).argmax(axis=1)])[:, None]
    thousandths = [tuple(int(value) for value in np.rint(row * 1000)) for row in (mean, *axes)]
    return QualityLimits(limits=(), mean_face=thousandths[0], face_axes=tuple(thousandths[1:]))


def measured(faces: Sequence[Uint8], space: QualityLimits) -> dict[str, Array]:
    """Measure every face: an array by measure."""
    found: dict[str, Array] = {}
    for index, face in enumerate(faces):
        for name, value in measure_crop(face, space).items():
            found.setdefault(name, np.empty(len(faces), np.float32))[index] = value
    return found


def shortest_side(network: Network, faces: Uint8, labels: Int64) -> tuple[QualityLimit, dict[int, float]]:
    """Shrink faces, and find the sizes at which recognition has lost a point and five."""
    accuracy = dict[int, float]()
    for size in SIZES:
        small = np.stack([cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA) for face in faces])
        features = network.encode(prepare_stills(small, network.manifest.preprocess))
        logits = network.logits(features[:, None], np.ones(len(features), np.int64))
        accuracy[size] = float((logits.argmax(axis=1) == labels).mean())
    good, reject = (
        min(size for size in SIZES if accuracy[SIZES[0]] - accuracy[size] <= lost) for lost in (LOST_GOOD, LOST_REJECT)
    )
    limit = QualityLimit(measure="side_px", reason="too small", reject=float(reject), good=float(good))
    return limit, accuracy


def limits_of(values: Mapping[str, Array]) -> list[QualityLimit]:
    """Take each limit from the quantiles of its measure over faces."""
    found = []
    for measure, reason, more, share in LIMITS:
        shares = np.array([share, TYPICAL, share * BESIDE_HEAD])
        quantiles = np.quantile(values[measure], shares if more else 1 - shares)
        reject, good, beside = (float(f"{value:.3g}") for value in quantiles)
        found.append(
            QualityLimit(measure=measure, reason=reason, reject=reject, good=good, beside_head=beside)  # type: ignore[arg-type]
        )
    return found


def write_recipe(limits: QualityLimits) -> None:
    """Write the recipe."""
    lines = ["# Measured on FER2013's training faces: bench/quality.py --write"]
    rows = ["[" + ", ".join(map(str, row)) + "]," for row in limits.face_axes]
    lines += [f"mean_face = [{', '.join(map(str, limits.mean_face))}]", "face_axes = [", *rows, "]"]
    for each in limits.limits:
        lines += ["", "[[limits]]", f'measure = "{each.measure}"', f'reason = "{each.reason}"']
        lines += [f"reject = {each.reject}", f"good = {each.good}"]
        lines += [] if each.beside_head is None else [f"beside_head = {each.beside_head}"]
    write_atomic(RECIPE, ("\n".join(lines) + "\n").encode())


def rejections(crops: Sequence[Uint8], limits: QualityLimits, recognizer: Recognizer) -> dict[str, Any]:
    """Count what the limits alone reject and why, and what a bundle with a head `crowd` rejects in all."""
    judged = [judge_crop(crop, limits) for crop in crops]
    reasons = Counter(reason for each in judged for reason in each.reasons)
    estimates = [
        estimate
        for start in range(0, len(crops), BATCH)
        for estimate in recognizer.recognize_stills(list(crops[start : start + BATCH]))
    ]
    return {
        "n": len(judged),
        "rejected": sum(bool(each.reasons) for each in judged) / len(judged),
        "reasons": {name: count / len(judged) for name, count in reasons.most_common()},
        "with_head": sum(bool(each.quality_reasons) for each in estimates) / len(estimates),
    }


def whole_frames(count: int) -> dict[str, list[Uint8]]:
    """Draw empty cabins: the camera's whole frames in grey, and its NV12 planes taken for grey."""
    rng = np.random.default_rng(3)
    pictures = [cabin(640, 480, rng) for _ in range(count)]
    return {
        "camera frame": [np.asarray(cv2.cvtColor(each, cv2.COLOR_BGR2GRAY), np.uint8) for each in pictures],
        "NV12 plane": [np.asarray(cv2.cvtColor(each, cv2.COLOR_BGR2YUV_I420), np.uint8) for each in pictures],
    }


@click.command()
@click.option("--data", required=True, help="FER2013 with votes, as KIND:PATH.")
@click.option("--bundle", default="base", show_default=True, help="Bundle that measures the shortest side.")
@click.option("--write", is_flag=True, help=f"Write {RECIPE.name}.")
@json_option
@report_errors
def main(data: str, bundle: str, write: bool, json_file: Path | None) -> None:
    """Measure the limits of a face crop's quality."""
    head = result_head("limits of a face crop's quality")
    dataset = load_dataset(data)
    train, choose = dataset.split("train"), dataset.split("choose")
    faces = np.asarray(train.images)[first_choice(train.votes) >= 0]
    shown = first_choice(choose.votes)
    images = np.asarray(choose.images)
    space = face_space(faces)
    with progress("measuring") as bar:
        bar("measuring", 0, 1)
        values = measured(faces, space)
    with Network.open(bundle, variant="int8") as network:
        side, accuracy = shortest_side(network, images, np.asarray(choose.labels))
    limits = QualityLimits(limits=(side, *limits_of(values)), mean_face=space.mean_face, face_axes=space.face_axes)
    if write:
        write_recipe(limits)
    pictures: dict[str, Sequence[Uint8]] = {
        "PublicTest faces": images[shown >= 0],
        "PublicTest, no expression seen": images[shown < 0],
        "black": [np.zeros((96, 96), np.uint8)],
        "white": [np.full((96, 96), 255, np.uint8)],
        **whole_frames(60),
        **{kind: make_negatives(kind, MADE, faces=faces, seed=1) for kind in NEGATIVES},
        "drawn faces": list(synthetic_stills(140, seed=1, size=96)[0]),
    }
    with Recognizer(bundle, variant="int8", reading="crowd") as recognizer:
        found = {name: rejections(crops, limits, recognizer) for name, crops in pictures.items()}
    result = {
        **head,
        "faces": len(faces),
        "bundle": bundle,
        "accuracy_by_side_px": accuracy,
        "limits": [each.__dict__ for each in limits.limits],
        "pictures": found,
    }
    rows = []
    for name, each in found.items():
        why = ", ".join(f"{reason} {share:.1%}" for reason, share in each["reasons"].items())
        rows.append((name, each["n"], f"{each['with_head']:.2%}", f"{each['rejected']:.2%}", why))
    columns = ("pictures", "n", "with head", "limits alone", "why")
    print_table(Table(columns=columns, rows=rows, title="what is rejected"))
    if json_file is not None:
        write_json(json_file, result)


if __name__ == "__main__":
    main()
