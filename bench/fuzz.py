"""Call the runtime with hostile arguments, and open damaged bundles: nothing but a `FerEdgeError` may come out.

    python bench/fuzz.py api --count 100000 --json bench/results/DEVICE/live/fuzz_api.json
    python bench/fuzz.py bundles --count 20000 --json bench/results/DEVICE/live/fuzz_bundles.json

Every case is drawn from its own number, so that ``--first N --count 1`` repeats case N. A call that takes longer than
ten seconds counts as a hang. Damaged bundles are opened in child processes, because an engine may crash on a graph.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.cli.console import progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.disk import sha256_bytes
from fer_edge.core.errors import FerEdgeError
from fer_edge.core.files import write_json
from fer_edge.core.verify import verify_bundle
from fer_edge.runtime import (
    CropGeometry,
    LiveOptions,
    LiveRecognizer,
    PreprocessSpec,
    Recognizer,
    StreamOptions,
    TrackerOptions,
    VideoRecognizer,
    cut_face,
    open_detector,
    open_session,
    prepare_face,
)
from fer_edge.runtime.frame_layout import LAYOUTS, convert_frame
from fer_edge.runtime.quality import QualityLimit, judge_crop, quality_limits

BUNDLE = "nano"
LONGEST_S = 10
BATCH = 200  # bundles of one child process
KEPT = 20  # faults described in the result

Random = np.random.Generator


class Hang(BaseException):
    """A call that took too long."""


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise `Hang` in a call that takes longer than ten seconds."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)


def anything(random: Random) -> Any:
    """Draw a value that an argument should not have."""
    numbers = [0, -1, 1, 2, 10**400, -(10**9), 0.5, 1e-300, 1e308, -1e308, float("nan"), float("inf"), -0.0, True, 1j]
    arrays = [
        np.zeros(()), np.zeros((3, 3)), np.zeros((0, 4), np.uint8), np.array("x"), np.array([None]), np.ones((2, 2, 4)),
        np.full((5, 7), 255, np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 2000), np.uint8),
        np.asfortranarray(np.zeros((9, 5, 3), np.uint8)), np.zeros((40, 40, 3), np.uint8)[::-2, ::3],
        np.ma.masked_array(np.zeros((4, 4), np.uint8)), np.zeros((4, 4), np.int64), np.array([np.nan] * 4),
    ]  # fmt: skip
    others = [
        None, "", "cpu", "auto", "\0", "x" * 5000, b"\xff", object(), int, [], (), {}, {"a": 1}, {1, 2}, [[[]]],
        [None] * 4, ["a"] * 4, (1, 2, 3), range(4), print, Path("/dev/zero"), Path("/nowhere"), "..", "~nobody",
    ]  # fmt: skip
    pool = [numbers, arrays, others][int(random.integers(3))]
    return pool[int(random.integers(len(pool)))]


def maybe(random: Random, good: Any) -> Any:
    """Return a good value, or anything."""
    return good if random.random() < 0.6 else anything(random)


def picture(random: Random) -> Any:
    """Draw a frame."""
    shape = (int(random.integers(1, 130)), int(random.integers(1, 170)), 3)
    return random.integers(0, 256, shape[: int(random.integers(2, 4))], dtype=np.uint8)


def box(random: Random) -> Any:
    """Draw a box, in one of several forms."""
    x, y, w, h = random.uniform(-20, 150, 4)
    forms = [(x, y, x + abs(w), y + abs(h)), (x, y, w, h), (x / 160, y / 160, 0.9, 0.9), (h, w, x, y), [x, y, w], None]
    return forms[int(random.integers(len(forms)))]


def time_s(random: Random) -> Any:
    """Draw a time, mostly a plausible one."""
    return maybe(random, float(random.choice([random.uniform(0, 1e4), random.uniform(0, 2e9), -5.0, 1e12])))


class Calls:
    """The public calls with drawn arguments, by name."""

    def __init__(self, opened: Recognizer) -> None:
        self._recognizer = opened
        self._video = VideoRecognizer(opened)
        self._stream = opened.stream()
        self._live = LiveRecognizer(opened, detector=None)
        self.named: dict[str, Callable[[Random], object]] = {
            name.removeprefix("_call_"): getattr(self, name) for name in dir(self) if name.startswith("_call_")
        }

    def close(self) -> None:
        """End the live recogniser."""
        self._live.close()

    def _call_recognize(self, random: Random) -> object:
        return self._recognizer.recognize(maybe(random, picture(random)))

    def _call_stills(self, random: Random) -> object:
        return self._recognizer.recognize_stills(maybe(random, [maybe(random, picture(random)) for _ in range(2)]))

    def _call_clip(self, random: Random) -> object:
        return self._recognizer.recognize_clip(maybe(random, [picture(random)] * int(random.integers(0, 20))))

    def _call_stream(self, random: Random) -> object:
        return self._stream.update(maybe(random, picture(random)), timestamp_s=time_s(random))

    def _call_streams(self, random: Random) -> object:
        streams, faces = maybe(random, [self._stream]), maybe(random, [picture(random)])
        return self._recognizer.update_streams(streams, faces, timestamp_s=time_s(random))

    def _call_process(self, random: Random) -> object:
        boxes = maybe(random, [box(random) for _ in range(int(random.integers(0, 3)))])
        boxes = [] if boxes is None else boxes
        return self._video.process(maybe(random, picture(random)), timestamp_s=time_s(random), boxes=boxes)

    def _call_still(self, random: Random) -> object:
        boxes = maybe(random, [box(random) for _ in range(int(random.integers(0, 3)))])
        return self._video.process_still(maybe(random, picture(random)), boxes=[] if boxes is None else boxes)

    def _call_reset(self, random: Random) -> object:
        self._stream.reset()
        return self._video.reset()

    def _call_push(self, random: Random) -> object:
        layout = maybe(random, str(random.choice(LAYOUTS)))
        boxes = maybe(random, [box(random)])
        return self._live.push(maybe(random, picture(random)), time_s(random), layout, boxes=boxes)

    def _call_health(self, random: Random) -> object:
        return self._live.health().to_json()

    def _call_tracking(self, random: Random) -> object:
        names = list(TrackerOptions.__dataclass_fields__)
        given = {str(random.choice(names)): maybe(random, box(random)) for _ in range(2)}
        return VideoRecognizer(self._recognizer, tracking=TrackerOptions(**given)).process(
            picture(random), timestamp_s=0.0, boxes=[(0, 0, 30, 30)]
        )

    def _call_streaming(self, random: Random) -> object:
        names = list(StreamOptions.__dataclass_fields__)
        return self._recognizer.stream(options=StreamOptions(**{str(random.choice(names)): anything(random)}))

    def _call_live_options(self, random: Random) -> object:
        names = list(LiveOptions.__dataclass_fields__)
        return LiveOptions(**{str(random.choice(names)): anything(random)})

    def _call_video(self, random: Random) -> object:
        names = ("detector", "tracking", "streaming", "clock", "reject")
        return VideoRecognizer(self._recognizer, **{str(random.choice(names)): anything(random)})

    def _call_open(self, random: Random) -> object:
        names = ("variant", "provider", "threads", "engines", "reading", "priors", "quality", "public_key")
        given = {str(random.choice(names)): anything(random)}
        Recognizer(maybe(random, BUNDLE), **given).close()
        return None

    def _call_variant(self, random: Random) -> object:
        return self._recognizer.change_variant(anything(random))

    def _call_network(self, random: Random) -> object:
        network = self._recognizer.network
        network.encode(maybe(random, np.zeros((2, 48, 48), np.uint8)))
        features = maybe(random, np.zeros((2, 3, network.feature_size), np.float32))
        return network.probabilities(features, maybe(random, np.array([1, 3], np.int64)))

    def _call_cut(self, random: Random) -> object:
        eyes = maybe(random, [(3.0, 4.0), (30.0, 9.0)])
        alignment = "eyes" if random.random() < 0.3 else "none"
        spec = PreprocessSpec(alignment=alignment)  # type: ignore[arg-type]
        crop = cut_face(maybe(random, picture(random)), maybe(random, box(random)), spec, eyes=eyes)
        return judge_crop(crop, quality_limits())

    def _call_prepare(self, random: Random) -> object:
        names = list(PreprocessSpec.__dataclass_fields__)
        return prepare_face(picture(random), PreprocessSpec(**{str(random.choice(names)): anything(random)}))

    def _call_layout(self, random: Random) -> object:
        layout = maybe(random, str(random.choice(LAYOUTS)))
        return convert_frame(maybe(random, picture(random)), layout, white_level=maybe(random, 4000))

    def _call_limits(self, random: Random) -> object:
        QualityLimit(
            measure="contrast", reason=maybe(random, "flat"), reject=maybe(random, 1.0), good=maybe(random, 2.0)
        ).score(3.0)
        return quality_limits().without(maybe(random, "dark"))

    def _call_geometry(self, random: Random) -> object:
        return CropGeometry(scale=maybe(random, 1.1), shift_x=maybe(random, 0.0), shift_y=maybe(random, 0.0))

    def _call_detector(self, random: Random) -> object:
        return open_detector(anything(random))

    def _call_session(self, random: Random) -> object:
        return open_session(maybe(random, bytes(random.integers(0, 256, 40, dtype=np.uint8))), provider="cpu")


def fuzz_api(first: int, count: int) -> dict[str, Any]:
    """Make calls with hostile arguments and count what came out."""
    outcomes, faults = Counter[str](), list[dict[str, Any]]()
    with Recognizer(BUNDLE, quality=None) as recognizer, progress("calling") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calls = Calls(recognizer)
        names = sorted(calls.named)
        for number in range(first, first + count):
            random = np.random.default_rng(number)
            name = names[int(random.integers(len(names)))]
            try:
                with no_hang():
                    calls.named[name](random)
                outcomes["returned"] += 1
            except FerEdgeError as error:
                outcomes[type(error).__name__] += 1
            except (Exception, Hang) as error:
                note(faults, outcomes, number, name, error)
            bar("calling", number - first + 1, count)
        calls.close()
    return {"count": count, "first": first, "outcomes": dict(outcomes.most_common()), "faults": faults[:KEPT]}


def note(faults: list[dict[str, Any]], outcomes: Counter[str], number: int, what: str, error: BaseException) -> None:
    """Count a fault, and describe it."""
    outcomes["fault"] += 1
    where = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{Path(where.filename).name}:{where.lineno}"
    if all((each["what"], each["at"]) != (what, at) for each in faults):
        faults.append({"case": number, "what": what, "error": f"{type(error).__name__}: {error}"[:300], "at": at})


def damage_json(value: Any, random: Random) -> Any:
    """Change one place of a JSON tree."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = str(random.choice(list(value)))
        kind = random.random()
        if kind < 0.15:
            return {other: part for other, part in value.items() if other != key}
        if kind < 0.25:
            return {**value, str(random.choice(["x", "name", "", "schema", "size_bytes"])): value[key]}
        return {**value, key: damage_json(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.85:
        place, kind = int(random.integers(len(value))), random.random()
        if kind < 0.25:
            return [*value[:place], *value[place + 1 :]]
        if kind < 0.35:
            return value[::-1]
        return [*value[:place], damage_json(value[place], random), *value[place + 1 :]]
    numbers = [0, -1, 3, 2**31, 2**63, 10**400, 1e-40, 1e300, 0.5, True]
    others: list[Any] = [None, "", "a" * 3000, "fp32", [], {}, [[]], "\ud7ff", "../../etc/passwd", "0" * 64]
    pool = numbers if random.random() < 0.5 else others
    return pool[int(random.integers(len(pool)))]


def damage_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    changed, place = bytearray(data), int(random.integers(len(data)))
    kind = int(random.integers(4))
    if kind == 0:
        for _ in range(int(random.integers(1, 9))):
            changed[int(random.integers(len(changed)))] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        changed[place:place] = bytes(random.integers(0, 256, 20, dtype=np.uint8))
    else:
        changed += changed[place : place + 500]
    return bytes(changed)


def damaged_bundle(folder: Path, files: dict[str, bytes], random: Random) -> str:
    """Write a bundle with one fault, and return its kind."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "graphs").mkdir(parents=True)
    files = dict(files)
    name = str(random.choice(sorted(files)))
    kind = str(random.choice(["tree", "tree", "tree", "text", "file", "hashed", "place"]))
    manifest = files["manifest.json"]
    if kind == "tree":
        tree = json.loads(manifest)
        for _ in range(int(random.integers(1, 3))):
            tree = damage_json(tree, random)
        files["manifest.json"] = json.dumps(tree).encode("utf-8", "surrogatepass")
    elif kind == "text":
        files["manifest.json"] = damage_bytes(manifest, random)
    elif kind == "file":
        files[name] = damage_bytes(files[name], random)
    elif kind == "hashed":  # a graph that its author damaged: the manifest names the damaged bytes
        name = str(random.choice([each for each in sorted(files) if each.endswith(".onnx")]))
        data, old = damage_bytes(files.pop(name), random), Path(name).stem
        files[f"graphs/{sha256_bytes(data)}.onnx"] = data
        text = manifest.decode().replace(old, sha256_bytes(data))
        sizes = json.loads(text)
        for variant in sizes["variants"]:
            for part in (variant["encoder"], *(head["graph"] for head in variant["heads"].values())):
                if part["sha256"] == sha256_bytes(data):
                    part["size_bytes"] = len(data)
        files["manifest.json"] = json.dumps(sizes).encode()
    for each, data in files.items():
        if kind != "place" or each != name:
            (folder / each).write_bytes(data)
    if kind == "place":
        place = folder / name
        put = int(random.integers(5))
        if put == 0:
            os.mkfifo(place)
        elif put == 1:
            place.symlink_to(place)
        elif put == 2:
            place.mkdir()
        elif put == 3:
            place.symlink_to("/dev/zero")
    return kind


def open_damaged(first: int, count: int, files: dict[str, bytes], found: Any) -> None:
    """Open damaged bundles in this process, and report each outcome."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="fer-edge-fuzz-"))
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    try:
        for number in range(first, first + count):
            found.put((number, "started", "", ""))
            random, kind, sound = np.random.default_rng(number), "", False
            try:
                with no_hang():
                    kind = damaged_bundle(folder / "bundle", files, random)
                    sound = verify_bundle(folder / "bundle").ok
                    with Recognizer(folder / "bundle", variant="fp32", quality=None) as recognizer:
                        recognizer.recognize(face)
                found.put((number, "ran" if sound else "ran, but verify refused", kind, ""))
            except FerEdgeError as error:
                outcome = f"{type(error).__name__}{' though verify passed' if sound else ''}"
                found.put((number, outcome, kind, str(error)))
            except (Exception, Hang) as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {error} at {Path(where.filename).name}:{where.lineno}"
                found.put((number, "fault", kind, said))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz_bundles(first: int, count: int) -> dict[str, Any]:
    """Open damaged bundles in child processes and count what came out."""
    bundle = Bundle.open(BUNDLE)
    variant = bundle.variant("fp32")
    tree = bundle.manifest.to_json()
    tree["variants"] = [each for each in tree["variants"] if each["name"] == "fp32"]
    files = {f"graphs/{file.sha256}.onnx": bundle.read_graph(file) for file in variant.parts.values()}
    files["manifest.json"] = json.dumps({**tree, "provenance": None}).encode()
    outcomes, faults, passed = Counter[str](), list[dict[str, Any]](), list[dict[str, Any]]()
    context, done = multiprocessing.get_context("fork"), first
    with progress("opening") as bar:
        while done < first + count:
            found = context.SimpleQueue()
            batch = min(BATCH, first + count - done)
            child = context.Process(target=open_damaged, args=(done, batch, files, found))
            child.start()
            child.join()
            last = done - 1
            while not found.empty():
                number, outcome, kind, said = found.get()
                if outcome == "started":
                    last = number
                    continue
                outcomes[outcome] += 1
                done = number + 1
                case = {"case": number, "what": kind, "error": said[:300]}
                if outcome == "fault":
                    faults.append(case)
                elif "though verify passed" in outcome:
                    passed.append(case)
            if done == last:  # the child ended inside this case
                outcomes["the engine crashed"] += 1
                faults.append({"case": last, "what": "process", "error": f"exit status {child.exitcode}"})
                done = last + 1
            bar("opening", done - first, count)
    return {
        "count": count, "first": first, "outcomes": dict(outcomes.most_common()), "faults": faults[:KEPT],
        "verify_passed": passed[:KEPT],
    }  # fmt: skip


@click.command()
@click.argument("what", type=click.Choice(["api", "bundles"]))
@click.option("--count", default=1000, show_default=True, type=click.IntRange(min=1), help="Cases.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(min=0), help="Number of the first case.")
@json_option
@report_errors
def main(what: str, count: int, first: int, json_file: Path | None) -> None:
    """Fuzz the runtime's API, or its bundle reader."""
    head = result_head(f"fuzzing: {what}")
    found = fuzz_api(first, count) if what == "api" else fuzz_bundles(first, count)
    click.echo(json.dumps(found, indent=2))
    if json_file is not None:
        write_json(json_file, {**head, **found})


if __name__ == "__main__":
    main()
