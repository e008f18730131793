"""Triton's `config.pbtxt` for the models of a repository, as text; Triton's own packages are not needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fer_edge.core.json import expect
from fer_edge.core.manifest import Manifest

__all__ = ["TritonOptions", "encoder_config", "recognizer_config", "step_config"]

LABELS_FILE: Final = "labels.txt"
_IDLE_US: Final = 1_000_000  # a stream starts over after a pause of a second, as `StreamOptions.max_gap_s` has it


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How a Triton server runs the models.

    Attributes:
        backend: ``"onnxruntime"`` runs the graphs as they are; ``"tensorrt"`` runs plans, which a script made for that
            builds from them with the server's own TensorRT.
        device: where the instances live; TensorRT has only ``"gpu"``.
        max_batch: frames, and steps of different streams, that one run takes.
        max_delay_us: how long a request may wait for others to share its run, in microseconds.
        streams: streams that an instance keeps state for at once; further ones wait.
        instances: instances of each model, on each GPU or on the CPU.
        threads: threads of one run on the CPU.

    Raises:
        InputError: a value out of range, or TensorRT on the CPU.
    """

    backend: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    device: Literal["gpu", "cpu"] = "gpu"
    max_batch: int = 64
    max_delay_us: int = 2000
    streams: int = 256
    instances: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        expect(1 <= self.max_batch <= 1024, "max_batch", self.max_batch, "1 to 1024")
        expect(0 <= self.max_delay_us <= 1_000_000, "max_delay_us", self.max_delay_us, "0 to 1000000 microseconds")
        expect(1 <= self.streams <= 65536, "streams", self.streams, "1 to 65536")
        expect(1 <= self.instances <= 64, "instances", self.instances, "1 to 64")
        expect(1 <= self.threads <= 256, "threads", self.threads, "1 to 256")
        fits = self.backend != "tensorrt" or self.device == "gpu"
        expect(fits, "device", self.device, "'gpu': TensorRT runs nowhere else")


@dataclass(frozen=True)
class _Word:
    """An enumerator, which text format writes without quotes."""

    name: str


@dataclass(frozen=True)
class _Message:
    """Fields in order; a list stands for a repeated field."""

    fields: tuple[tuple[str, _Value], ...]


_Scalar = str | int | bool | _Word
_Value = _Scalar | _Message | Sequence[int] | Sequence[_Message]


def _message(**fields: _Value) -> _Message:
    return _Message(tuple(fields.items()))


def encoder_config(name: str, manifest: Manifest, *, tokens: int, options: TritonOptions) -> str:
    """The frame encoder: stateless, requests of any streams batched as they come."""
    size, width = manifest.preprocess.size, manifest.sequence.feature_size
    warm_up = _message(data_type=_Word("TYPE_UINT8"), dims=[size, size], random_data=True)
    return _text(
        [
            *_head(name, options),
            ("input", [_tensor("frames", "TYPE_UINT8", size, size)]),
            ("output", [_tensor("features", "TYPE_FP32", width), _tensor("attention", "TYPE_FP32", tokens)]),
            ("dynamic_batching", _message(max_queue_delay_microseconds=options.max_delay_us)),
            *_instances(options),
            # The first run on a GPU loads kernels; no camera should wait for that.
            (
                "model_warmup",
                [
                    _message(name=f"{size}x{size}, batch {batch}", batch_size=batch, inputs=[_entry("frames", warm_up)])
                    for batch in sorted({1, options.max_batch})
                ],
            ),
        ]
    )


def step_config(name: str, manifest: Manifest, *, options: TritonOptions) -> str:
    """The step: Triton keeps each stream's window and its length, and starts them at zero."""
    window, width = manifest.sequence.window, manifest.sequence.feature_size
    batching = _message(
        max_sequence_idle_microseconds=_IDLE_US,
        oldest=_message(max_candidate_sequences=options.streams, max_queue_delay_microseconds=options.max_delay_us),
        control_input=[_control("start", "CONTROL_SEQUENCE_START"), _control("ready", "CONTROL_SEQUENCE_READY")],
        state=[
            _state("length", "next_length", "TYPE_INT32", 1),
            _state("window", "next_window", "TYPE_FP32", window, width),
        ],
    )
    probabilities = _message(
        name="probabilities",
        data_type=_Word("TYPE_FP32"),
        dims=[len(manifest.labels)],
        label_filename=LABELS_FILE,
    )
    return _text(
        [
            *_head(name, options),
            ("input", [_tensor("feature", "TYPE_FP32", width)]),
            # The length is a state that a client may also ask for: below `window` the estimate rests on fewer frames.
            ("output", [probabilities, _tensor("next_length", "TYPE_INT32", 1)]),
            ("sequence_batching", batching),
            *_instances(options),
        ]
    )


def recognizer_config(name: str, manifest: Manifest, *, encoder: str, step: str, options: TritonOptions) -> str:
    """Encoder and step in one request: a frame in, probabilities out, the features never leave the server."""
    size = manifest.preprocess.size
    return _text(
        [
            ("name", name),
            ("platform", "ensemble"),
            ("max_batch_size", options.max_batch),
            ("input", [_tensor("frames", "TYPE_UINT8", size, size)]),
            (
                "output",
                [
                    _message(
                        name="probabilities",
                        data_type=_Word("TYPE_FP32"),
                        dims=[len(manifest.labels)],
                        label_filename=LABELS_FILE,
                    ),
                    _tensor("next_length", "TYPE_INT32", 1),
                ],
            ),
            (
                "ensemble_scheduling",
                _message(
                    step=[
                        _stage(encoder, inputs={"frames": "frames"}, outputs={"features": "features"}),
                        _stage(
                            step,
                            inputs={"feature": "features"},
                            outputs={"probabilities": "probabilities", "next_length": "next_length"},
                        ),
                    ]
                ),
            ),
        ]
    )


def _head(name: str, options: TritonOptions) -> list[tuple[str, _Value]]:
    runs: dict[str, list[tuple[str, _Value]]] = {
        "onnxruntime": [("backend", "onnxruntime"), ("platform", "onnxruntime_onnx")],
        "tensorrt": [("backend", "tensorrt"), ("platform", "tensorrt_plan")],
    }
    return [("name", name), *runs[options.backend], ("max_batch_size", options.max_batch)]


def _instances(options: TritonOptions) -> list[tuple[str, _Value]]:
    kind = _Word("KIND_GPU" if options.device == "gpu" else "KIND_CPU")
    fields: list[tuple[str, _Value]] = [("instance_group", [_message(kind=kind, count=options.instances)])]
    if options.device == "cpu":
        threads = _message(string_value=str(options.threads))
        fields.append(("parameters", [_entry("intra_op_thread_count", threads)]))
    return fields


def _tensor(name: str, data_type: str, *dims: int) -> _Message:
    return _message(name=name, data_type=_Word(data_type), dims=list(dims))


def _entry(key: str, value: _Message) -> _Message:
    return _message(key=key, value=value)


def _control(name: str, kind: str) -> _Message:
    return _message(name=name, control=[_message(kind=_Word(kind), int32_false_true=[0, 1])])


def _state(input_name: str, output_name: str, data_type: str, *dims: int) -> _Message:
    initial = _message(data_type=_Word(data_type), dims=list(dims), zero_data=True, name=f"no {input_name}")
    return _message(
        input_name=input_name,
        output_name=output_name,
        data_type=_Word(data_type),
        dims=list(dims),
        initial_state=[initial],
    )


def _stage(model: str, *, inputs: dict[str, str], outputs: dict[str, str]) -> _Message:
    return _message(
        model_name=model,
        model_version=-1,
        input_map=[_message(key=key, value=value) for key, value in inputs.items()],
        output_map=[_message(key=key, value=value) for key, value in outputs.items()],
    )


def _text(fields: Sequence[tuple[str, _Value]], *, indent: str = "") -> str:
    """Protobuf's text format: a field a line, a message in braces, a repeated message once for each."""
    lines = []
    for name, value in fields:
        if isinstance(value, _Message):
            lines.append(f"{indent}{name} {{\n{_text(value.fields, indent=indent + '  ')}{indent}}}\n")
        elif isinstance(value, str | int | _Word):
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
        elif all(isinstance(each, int) for each in value):
            lines.append(f"{indent}{name}: [{', '.join(map(str, value))}]\n")
        else:
            lines.extend(_text([(name, each)], indent=indent) for each in value)
    return "".join(lines)


def _scalar(value: _Scalar) -> str:
    if isinstance(value, _Word):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value)
