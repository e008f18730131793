"""Run the runtime for long, and compare memory, threads and open files at its begin and end.

    python bench/soak.py --crops 100000 --frames 100000 --json bench/results/DEVICE/live/soak.json

Crops go through one stream; frames, with a drawn face that sways, comes and goes, through `VideoRecognizer` with the
cascade detector. Memory is compared after a warm-up of a tenth of the samples; its growth is the difference of the
medians of the first and the last tenth after it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.cli.console import progress
from fer_edge.core.files import write_json
from fer_edge.core.types import Uint8
from fer_edge.data.faces import draw_face, random_face, synthetic_stills
from fer_edge.data.faces.scenes import cabin
from fer_edge.runtime import Recognizer, VideoRecognizer

RATE = 30.0
SAMPLES = 200  # of memory, evenly spread


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """Return the number of this process's file descriptors."""
    return len(os.listdir("/proc/self/fd"))


def soak(step: Callable[[int], object], count: int, *, seconds: float, what: str) -> dict[str, Any]:
    """Run a step many times, and compare the process before and after."""
    every, samples, started = max(1, count // SAMPLES), list[int](), time.monotonic()
    warm, before = max(1, count // 10), (0, 0)
    with progress(what) as bar:
        for index in range(count):
            step(index)
            if index == warm:
                gc.collect()
                before = threading.active_count(), open_files()
            if index >= warm and index % every == 0:
                samples.append(resident_bytes())
                bar(what, index, count)
                if time.monotonic() - started > seconds:
                    break
    gc.collect()
    tenth = max(1, len(samples) // 10)
    growth = float(np.median(samples[-tenth:]) - np.median(samples[:tenth]))
    return {
        "steps": index + 1,
        "seconds": time.monotonic() - started,
        "resident_bytes": {"first": samples[0], "last": samples[-1], "largest": max(samples), "growth": growth},
        "threads": {"before": before[0], "after": threading.active_count()},
        "open_files": {"before": before[1], "after": open_files()},
    }


def drawn_frames() -> list[Uint8]:
    """Draw a face that sways in a car, and is away in every fifth frame of a second: 640x480."""
    rng = np.random.default_rng(1)
    scene, person, frames = cabin(640, 480, rng), random_face(rng, "neutral", turn=0.0), []
    for index in range(60):
        turn = 2 * np.pi * index / 60
        left, top = 235 + 25 * np.sin(turn), 145 + 12 * np.cos(turn)
        seen = index % 30 < 24
        frames.append(draw_face(person, scene, box_xyxy=(left, top, left + 170, top + 170)) if seen else scene)
    return frames


@click.command()
@click.option("--bundle", default="base", show_default=True, help="A bundle's folder or shipped name.")
@click.option("--variant", default="int8", show_default=True, help="Variant of the bundle.")
@click.option("--crops", default=100_000, show_default=True, type=click.IntRange(min=20), help="Face crops.")
@click.option("--frames", default=100_000, show_default=True, type=click.IntRange(min=20), help="Whole frames.")
@click.option("--minutes", default=60.0, show_default=True, help="Longest time for each of the two.")
@json_option
@report_errors
def main(bundle: str, variant: str, crops: int, frames: int, minutes: float, json_file: Path | None) -> None:
    """Soak the runtime in crops and in frames."""
    head = result_head("a long run")
    cv2.setNumThreads(1)
    faces, pictures = synthetic_stills(70, seed=2, size=96)[0], drawn_frames()
    with Recognizer(bundle, variant=variant) as recognizer:
        stream, video = recognizer.stream(), VideoRecognizer(recognizer)
        results = {
            "crops": soak(
                lambda index: stream.update(faces[index % len(faces)], timestamp_s=index / RATE),
                crops, seconds=60 * minutes, what="crops",
            ),
            "frames": soak(
                lambda index: video.process(pictures[index % len(pictures)], timestamp_s=index / RATE),
                frames, seconds=60 * minutes, what="frames",
            ),
        }  # fmt: skip
        info = recognizer.info.to_json()
    for name, each in results.items():
        growth = each["resident_bytes"]["growth"] / 1e6
        click.echo(f"{name}: {each['steps']} in {each['seconds']:.0f} s, memory {growth:+.2f} MB")
    if json_file is not None:
        write_json(json_file, {**head, "engine": info, **results})


if __name__ == "__main__":
    main()
