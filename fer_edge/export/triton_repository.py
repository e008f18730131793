"""A bundle as a model repository for Triton: the frame encoder, the head as a stateful step, and both in one request.

    models/<bundle>_encoder      frames -> features; requests of all streams share its runs
    models/<bundle>_step         feature -> probabilities; Triton keeps each stream's window between requests
    models/<bundle>_recognizer   an ensemble of the two: frame -> probabilities

The client sends one prepared face per request, at the bundle's frame rate, with its stream's correlation id and a start
flag on the first. The server handles the rest of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import SessionError, require
from fer_edge.core.files import write_atomic
from fer_edge.core.manifest import Manifest
from fer_edge.core.metrics import softmax
from fer_edge.core.types import Array, Float32, Progress
from fer_edge.export.backend import Backend, fill_script
from fer_edge.export.job import Part, PlannedFile, TargetJob
from fer_edge.export.parity.frames import drawn_frames
from fer_edge.export.parity.outputs import Parity, compare_outputs, require_parity
from fer_edge.export.triton_config import LABELS_FILE, TritonOptions, encoder_config, recognizer_config, step_config
from fer_edge.runtime.feature_window import FeatureWindow
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import Session

__all__ = ["TritonBackend", "compare_step"]

_TOLERANCE: Final = 1e-4
"""Largest difference of a probability between the step and the runtime."""

_FEWEST_STEPS: Final = 40
_FACES: Final = 14  # different ones, in any order: two of each expression
_FOREIGN: Final = 1e6  # far from every feature
_SCRIPT: Final = "build-plans.sh"
_MODELS: Final = ("encoder", "step", "recognizer")


class TritonBackend(Backend):
    """A model repository, whose step is compared with the runtime, stream by stream."""

    def planned(self) -> tuple[PlannedFile, ...]:
        job, options = self.job, self.job.recipe.triton
        precision = job.bundle.variant(job.variant).precision
        remark = f"{_SCRIPT} builds the server's plan from it" if options.backend == "tensorrt" else ""
        graphs: dict[str, Part] = {"encoder": "encoder", "step": "head"}
        places = {_graph_place(job.bundle.manifest.name, model, options): part for model, part in graphs.items()}
        return (
            *(PlannedFile(name=name, part=part, precision=precision, remark=remark) for name, part in places.items()),
            *(PlannedFile(name=name) for name in _repository(job.bundle.manifest, options)),
        )

    def check(self) -> None:
        job = self.job
        if "clip" in job.graphs:
            raise SessionError(f"the target {job.name!r}: a server does not use the clip graph; leave out --clip")
        require("onnx", needed_by=f"the target {job.name!r}", extra="calibrate")
        if job.recipe.triton.backend != "tensorrt":
            return
        from fer_edge.graph.graph import Graph
        from fer_edge.graph.qdq import unsigned_nodes

        unsigned = [part for part, graph in job.graphs.items() if unsigned_nodes(Graph.read(graph, name=part))]
        if unsigned:
            raise SessionError(
                f"the target {job.name!r}: variant {job.variant!r} quantizes to uint8 in its {' and '.join(unsigned)}, "
                "TensorRT takes signed INT8 only: pass --variant int8-trt, or fp32"
            )

    def write(self, folder: Path, progress: Progress) -> str:
        from fer_edge.graph.graph import Graph
        from fer_edge.graph.streaming_step import step_graph

        job, manifest, options = self.job, self.job.bundle.manifest, self.job.recipe.triton
        progress("building the step", 0, 2)
        encoder = Graph.read(job.graphs["encoder"], name="the encoder")
        step = step_graph(
            Graph.read(job.graphs["head"], name="the head"),
            window=manifest.sequence.window,
            temperature=job.bundle.variant(job.variant).temperature,
        )
        regions = encoder.outputs["attention"].shape[-1]
        files = _repository(manifest, options, tokens=regions if isinstance(regions, int) else -1)
        graphs = {"encoder": job.graphs["encoder"], "step": step.write(name="the step")}
        for model, graph in graphs.items():
            files[_graph_place(manifest.name, model, options)] = graph
        progress("comparing the step with the runtime", 1, 2)
        self.parity, engine = _parity(job, graphs)
        require_parity(self.parity, tolerance=_TOLERANCE, what=f"the step of {manifest.name!r} against the runtime")
        for name, data in files.items():
            write_atomic(folder / name, data)
        if _SCRIPT in files:
            (folder / _SCRIPT).chmod(0o755)
        return engine


def _repository(manifest: Manifest, options: TritonOptions, *, tokens: int = -1) -> dict[str, bytes]:
    """Write every file except the graphs, by place in the folder; `tokens` is the number of regions, -1 if unknown."""
    names = {model: f"{manifest.name}_{model}" for model in _MODELS}
    configs = {
        "encoder": encoder_config(names["encoder"], manifest, tokens=tokens, options=options),
        "step": step_config(names["step"], manifest, options=options),
        "recognizer": recognizer_config(
            names["recognizer"], manifest, encoder=names["encoder"], step=names["step"], options=options
        ),
    }
    files = {f"models/{names[model]}/config.pbtxt": text.encode() for model, text in configs.items()}
    labels = "".join(f"{label}\n" for label in manifest.labels).encode()
    for model in ("step", "recognizer"):
        files[f"models/{names[model]}/{LABELS_FILE}"] = labels
    # An ensemble has no file of its own, and object stores and version control drop an empty folder.
    files[f"models/{names['recognizer']}/1/.keep"] = b""
    if options.backend == "tensorrt":
        files[_SCRIPT] = _build_script(manifest, options).encode()
    return files


def _graph_place(bundle: str, model: str, options: TritonOptions) -> str:
    """Return a graph's place: in the repository, or beside it where a plan is built from it."""
    if options.backend == "tensorrt":
        return f"onnx/{bundle}_{model}.onnx"
    return f"models/{bundle}_{model}/1/model.onnx"


def _build_script(manifest: Manifest, options: TritonOptions) -> str:
    """Write the script that builds each plan with trtexec, in the server's container."""
    size, window, width = manifest.preprocess.size, manifest.sequence.window, manifest.sequence.feature_size
    inputs: dict[str, dict[str, tuple[int, ...]]] = {
        "encoder": {"frames": (size, size)},
        "step": {"feature": (width,), "window": (window, width), "length": (1,), "ready": (1,), "start": (1,)},
    }
    batches = {"min": 1, "opt": min(8, options.max_batch), "max": options.max_batch}
    lines = []
    for model, shapes in inputs.items():
        profile = " ".join(f"--{end}Shapes={_trtexec_shapes(shapes, batch)}" for end, batch in batches.items())
        lines.append(f"build {manifest.name}_{model} {profile}\n")
    return fill_script(_SCRIPT, builds="".join(lines))


def _trtexec_shapes(shapes: Mapping[str, tuple[int, ...]], batch: int) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, (batch, *dims)))}" for name, dims in shapes.items())


def _parity(job: TargetJob, graphs: Mapping[str, bytes]) -> tuple[Parity, str]:
    """Compare the step with the head and the runtime's window, on drawn faces, in ONNX Runtime on the CPU."""
    manifest = job.bundle.manifest
    steps = max(_FEWEST_STEPS, 5 * manifest.sequence.window // 2)
    faces = drawn_frames(_FACES, manifest.preprocess)
    order = np.random.default_rng(0).integers(_FACES, size=(2, steps))
    with open_session(graphs["encoder"]) as encoder:
        rows = encoder.run({"frames": faces})["features"][order]
    with open_session(graphs["step"]) as step, open_session(job.graphs["head"]) as head:
        temperature = job.bundle.variant(job.variant).temperature
        parity = compare_step(step, head, rows, manifest=manifest, temperature=temperature)
        return parity, step.provider_version


def compare_step(step: Session, head: Session, features: Float32, *, manifest: Manifest, temperature: float) -> Parity:
    """Compare streams through the step, as a server runs it, with the runtime's own window and head.

    The first stream runs without a break. The others miss every seventh frame and restart half-way, on a state that
    holds foreign numbers.

    Args:
        step: the step's graph.
        head: the head that it was made from.
        features: float32 (streams, steps, F), at least one stream.
        manifest: of the bundle, for window and frame rate.
        temperature: of the variant.

    Raises:
        GateError: an output is missing, of another shape, or not finite.
    """
    sequence = manifest.sequence
    streams, steps, width = features.shape
    windows = [FeatureWindow(sequence) for _ in range(streams)]
    taken = np.zeros(streams, np.int64)  # frames so far: the clock of a stream whose frames come at the model's rate
    state: dict[str, Array] = {
        "window": np.full((streams, sequence.window, width), _FOREIGN, np.float32),
        "length": np.zeros((streams, 1), np.int32),
    }
    pairs, shapes = [], []
    for index in range(steps):
        over = index in (0, steps // 2)
        ready = np.array([stream == 0 or over or index % 7 != 6 for stream in range(streams)])
        start = np.array([over and (index == 0 or stream > 0) for stream in range(streams)])
        state["window"][start] = _FOREIGN
        flags = {name: value.astype(np.int32)[:, None] for name, value in (("ready", ready), ("start", start))}
        found = step.run({"feature": features[:, index], **flags, **state})
        state = {"window": found["next_window"], "length": found["next_length"]}
        due = np.flatnonzero(ready)
        for stream in due:
            if start[stream]:
                windows[stream].clear()
            windows[stream].push(features[stream, index], timestamp_s=taken[stream] / sequence.frame_rate)
        taken[due] += 1
        views = [windows[stream].view() for stream in due]
        lengths = np.array([view.length for view in views], np.int64)
        logits = head.run({"features": np.stack([view.features for view in views]), "length": lengths})["logits"]
        expected = {"probabilities": softmax(logits, temperature=temperature), "next_length": lengths[:, None]}
        pairs.append((expected, {name: found[name][ready] for name in expected}))
        shapes.append((len(due), width))
    parity = compare_outputs(pairs, shapes)
    return replace(parity, shapes=tuple(dict.fromkeys(shapes)))
