"""Measure how a detector's boxes relate to the framing of FER2013's faces, for the recipe of the detector.

    python bench/crop_geometry.py haar --data fer2013:PATH --json FILE
    python bench/crop_geometry.py yunet:FILE --data fer2013:PATH --json FILE

Each training face is enlarged and padded with its border, the detector searches the result, and the crop that FER2013
shows is compared with the box found. The medians go into `fer_edge/runtime/recipes/`.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.cli.console import progress
from fer_edge.core.errors import DataError
from fer_edge.core.files import write_json
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Array, Uint8
from fer_edge.data import load_dataset
from fer_edge.runtime.detector import CropGeometry, FaceDetector
from fer_edge.runtime.face_finder import open_detector

ENLARGED = 4
PADDING = 0.5  # of the face's side, on each side: a detector needs more of the head than the crop shows
LEAST_SIDE = 0.5  # of the crop's side: smaller boxes are parts of faces


def padded(face: Uint8) -> Uint8:
    """Enlarge a face and repeat its border: uint8 (H, W, 3) BGR."""
    large = cv2.resize(face, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    pad = round(PADDING * large.shape[0])
    return cv2.cvtColor(cv2.copyMakeBorder(large, pad, pad, pad, pad, cv2.BORDER_REPLICATE), cv2.COLOR_GRAY2BGR)


def relation(detector: FaceDetector, face: Uint8) -> tuple[float, float, float] | None:
    """Return scale, shift_x and shift_y from the box found to FER2013's crop; None where none is found."""
    scene = padded(face)
    side = ENLARGED * face.shape[0]
    boxes = [box for box in detector.detect(scene) if LEAST_SIDE * side <= box[2] - box[0] <= side / LEAST_SIDE]
    if len(boxes) != 1:
        return None
    left, top, right, bottom = boxes[0]
    middle = scene.shape[0] / 2
    shift = ((middle - (left + right) / 2) / (right - left), (middle - (top + bottom) / 2) / (bottom - top))
    return side / max(right - left, bottom - top), *shift


def spread(values: Array) -> dict[str, float]:
    """Summarise the relations of many faces in one direction."""
    q1, median, q3 = np.percentile(values, (25, 50, 75))
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


@click.command()
@click.argument("detector")
@click.option("--data", required=True, help="FER2013, as KIND:PATH.")
@click.option("--faces", default=4000, show_default=True, type=click.IntRange(min=10), help="Training faces to use.")
@json_option
@report_errors
def main(detector: str, data: str, faces: int, json_file: Path | None) -> None:
    """Measure the crop geometry of DETECTOR: haar, or yunet:FILE."""
    head = result_head("crop geometry of a face detector")
    opened = open_detector(detector)
    images = load_dataset(data).split("train").images
    chosen = np.random.default_rng(0).permutation(len(images))[:faces]
    found: list[tuple[float, float, float]] = []
    with progress("detecting") as bar:
        for count, index in enumerate(chosen, start=1):
            each = relation(opened, images[index])
            if each is not None:
                found.append(each)
            bar("detecting", count, len(chosen))
    if not found:
        raise DataError(f"{data}: got no face that {detector} finds, expected some")
    scale, shift_x, shift_y = np.array(found).T
    measured = {"scale": spread(scale), "shift_x": spread(shift_x), "shift_y": spread(shift_y)}
    geometry = CropGeometry(**{name: round(values["median"], 3) for name, values in measured.items()})
    name = detector.partition(":")[0]
    result = {**head, "detector": name, "faces": len(chosen), "found": len(found), "measured": measured}
    rows = [(key, *(f"{value:.3f}" for value in values.values())) for key, values in measured.items()]
    print_table(Table(columns=("to FER2013's crop", "median", "q1", "q3"), rows=rows, title=f"{name}: {geometry}"))
    if json_file is not None:
        write_json(json_file, result)


if __name__ == "__main__":
    main()
