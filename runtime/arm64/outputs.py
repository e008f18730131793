"""Records a bundle's outputs on one machine and compares those of two machines; prove-arm64.sh runs it on both.

python outputs.py draw FACES.npz CLIP.avi
python outputs.py record BUNDLE FACES.npz OUTPUTS.npz LITERT_FOLDER
python outputs.py compare X86_FOLDER ARM64_FOLDER RESULT.json
"""

from __future__ import annotations

import itertools
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 4  # an emulated float network takes seconds per frame
CLIP_FRAMES = 3
PACKAGES = ("fer-edge", "numpy", "opencv-python-headless", "onnxruntime", "ai-edge-litert")


def draw(faces: str, clip: str) -> None:
    """Draw faces and a video once, so that both machines start from the same pixels."""
    import cv2

    from fer_edge.data.faces import synthetic_frames
    from fer_edge.data.faces.stills import synthetic_stills

    np.savez_compressed(faces, faces=np.stack(synthetic_stills(FRAMES, seed=0)[0]))
    writer = cv2.VideoWriter(clip, cv2.VideoWriter.fourcc(*"MJPG"), 10, (480, 360))
    drawn = synthetic_frames(("happy",), frames=10, frame_rate=10, seed=0, size=(480, 360))
    for frame in itertools.islice(drawn, CLIP_FRAMES):
        writer.write(frame.image)
    writer.release()


def record(bundle: str, faces: str, outputs: str, litert: str) -> None:
    """Record prepared faces, and features and logits of every variant, with the versions that computed them.

    ONNX Runtime computes every variant, and LiteRT those whose files are in a subfolder of `litert` of their name.
    """
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.preprocess import prepare_stills
    from fer_edge.runtime.inference import Network

    opened = Bundle.open(bundle)
    window = opened.manifest.sequence.window
    prepared = prepare_stills(np.load(faces)["faces"], opened.manifest.preprocess)
    found: dict[str, Any] = {"prepared": prepared}
    providers: dict[str, str] = {}
    names = [variant.name for variant in opened.manifest.variants]
    ways: list[tuple[str, str, Path | None]] = [(name, "cpu", None) for name in names]
    ways += [(name, "litert", Path(litert) / name) for name in names if (Path(litert) / name).is_dir()]
    for name, provider, engines in ways:
        with Network.open(opened, variant=name, provider=provider, engines=engines) as network:
            providers[provider] = network.info.provider_version
            features = network.encode(prepared)
            # Full windows of these few features, each starting at another one.
            windows = features[(np.arange(FRAMES)[:, None] + np.arange(window)) % FRAMES]
            key = name if provider == "cpu" else f"{name} in {provider}"
            found[f"{key}/features"] = features
            found[f"{key}/still_logits"] = network.logits(features[:, None], np.ones(len(features), np.int64))
            found[f"{key}/window_logits"] = network.logits(windows, np.full(len(windows), window, np.int64))
    about = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "providers": providers,
        "bundle": opened.manifest.name,
        "bundle_sha256": opened.sha256,
    }
    np.savez_compressed(outputs, about=json.dumps(about), **found)


def compare(x86_folder: str, arm64_folder: str, result: str) -> None:
    """Compare outputs and the records of `fer-edge run`, write JSON, and exit with 1 where labels differ."""
    x86, arm64 = Path(x86_folder), Path(arm64_folder)
    ours, theirs = np.load(x86 / "outputs.npz"), np.load(arm64 / "outputs.npz")
    names = sorted({name.partition("/")[0] for name in ours.files if "/" in name})
    report = {
        "schema": 1,
        "what": "the runtime's wheel on an arm64 Debian under qemu user emulation, against the same wheel on x86-64",
        "command": "runtime/prove-arm64.sh",
        "emulated": True,
        **json.loads((arm64 / "system.json").read_text("utf-8")),
        "x86-64": json.loads(str(ours["about"])),
        "arm64": json.loads(str(theirs["about"])),
        "verify": json.loads((arm64 / "verify.json").read_text("utf-8"))["ok"],
        "prepared_pixels_that_differ": int(np.count_nonzero(ours["prepared"] != theirs["prepared"])),
        "variants": {name: _outputs(ours, theirs, name) for name in names},
        "runs": {path.stem: _runs(path, arm64 / "runs" / path.name) for path in sorted((x86 / "runs").glob("*.jsonl"))},
    }
    Path(result).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(json.dumps({key: report[key] for key in ("verify", "variants", "runs")}, indent=2))
    agreed = [entry["label_agreement"] for group in ("variants", "runs") for entry in report[group].values()]
    if not report["verify"] or min(agreed) < 1:
        sys.exit("labels differ between the two machines, or the bundle does not verify there")


def _outputs(ours: Any, theirs: Any, variant: str) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    same = []
    for kind in ("features", "still_logits", "window_logits"):
        mine, other = ours[f"{variant}/{kind}"], theirs[f"{variant}/{kind}"]
        found[f"{kind}_max_abs_diff"] = float(np.abs(mine - other).max())
        if kind != "features":
            same.append(mine.argmax(axis=1) == other.argmax(axis=1))
    labels = np.concatenate(same)
    return {**found, "compared": len(labels), "label_agreement": float(labels.mean())}


def _runs(mine: Path, other: Path) -> dict[str, float | int]:
    """Compare two runs of `fer-edge run --json`, frame by frame."""
    rows = [[json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (mine, other)]
    frames = [[row for row in run if row["record"] == "frame"] for run in rows]
    if len(frames[0]) != len(frames[1]):
        sys.exit(f"{mine.name}: {len(frames[0])} frames there, {len(frames[1])} here")
    labels, differences, boxes = [], [0.0], [0.0]
    for one, two in zip(*frames, strict=True):
        labels.append([each["label"] for each in one["estimates"]] == [each["label"] for each in two["estimates"]])
        for a, b in zip(one["estimates"], two["estimates"], strict=False):
            differences += [abs(a["probabilities"][label] - b["probabilities"][label]) for label in a["probabilities"]]
            boxes += [abs(x - y) for x, y in zip(a["box_xyxy"], b["box_xyxy"], strict=True)]
    return {
        "frames": len(labels),
        "frames_with_a_face": sum(bool(row["estimates"]) for row in frames[0]),
        "label_agreement": float(np.mean(labels)),
        "probability_max_abs_diff": max(differences),
        "box_max_abs_diff_px": max(boxes),
    }


if __name__ == "__main__":
    commands = {"draw": (draw, 2), "record": (record, 4), "compare": (compare, 3)}
    name, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name not in commands or len(arguments) != commands[name][1]:
        sys.exit(__doc__)
    commands[name][0](*arguments)
