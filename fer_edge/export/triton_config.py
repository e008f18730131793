"""Triton's `config.pbtxt` of a repository's models, in protobuf's text format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fer_edge.core.json import expect
from fer_edge.core.manifest import Manifest

__all__ = ["TritonOptions", "encoder_config", "recognizer_config", "step_config"]

LABELS_FILE: Final = "labels.txt"
_IDLE_US: Final = 1_000_000  # a stream restarts after a pause of 1 s, as with `StreamOptions.max_gap_s`


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """Settings of a Triton server for the models.

    Attributes:
        backend: ``"onnxruntime"`` runs the graphs; ``"tensorrt"`` runs plans that a script builds from them on the
            server.
        device: of the instances; TensorRT has only ``"gpu"``.
        max_batch: frames, or steps of different streams, per run.
        max_delay_us: longest wait of a request for others to share its run, in microseconds.
        streams: streams with state per instance; further streams wait.
        instances: of each model, on each GPU or on the CPU.
        threads: of one run on the CPU.

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
        expect(fits, "device", self.device, "'gpu', the only device of TensorRT")


def encoder_config(name: str, manifest: Manifest, *, tokens: int, options: TritonOptions) -> str:
    """Write the frame encoder's configuration: stateless, requests of all streams in one batch."""
    size, width = manifest.preprocess.size, manifest.sequence.feature_size
    # The first run on a GPU loads kernels; no camera should wait for that.
    warm_up = "".join(_WARM_UP.format(size=size, batch=batch) for batch in sorted({1, options.max_batch}))
    return f"""{_model(name, options)}\
input {{ name: "frames" data_type: TYPE_UINT8 dims: [{size}, {size}] }}
output {{ name: "features" data_type: TYPE_FP32 dims: [{width}] }}
output {{ name: "attention" data_type: TYPE_FP32 dims: [{tokens}] }}
dynamic_batching {{ max_queue_delay_microseconds: {options.max_delay_us} }}
{_instances(options)}{warm_up}"""


def step_config(name: str, manifest: Manifest, *, options: TritonOptions) -> str:
    """Write the step's configuration: Triton keeps each stream's window and length, which start at zero."""
    window, width = manifest.sequence.window, manifest.sequence.feature_size
    return f"""{_model(name, options)}\
input {{ name: "feature" data_type: TYPE_FP32 dims: [{width}] }}
{_outputs(manifest)}\
sequence_batching {{
  max_sequence_idle_microseconds: {_IDLE_US}
  oldest {{
    max_candidate_sequences: {options.streams}
    max_queue_delay_microseconds: {options.max_delay_us}
  }}
  control_input {{ name: "start" control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }} }}
  control_input {{ name: "ready" control {{ kind: CONTROL_SEQUENCE_READY int32_false_true: [0, 1] }} }}
{_state("length", "TYPE_INT32", "1")}{_state("window", "TYPE_FP32", f"{window}, {width}")}}}
{_instances(options)}"""


def recognizer_config(name: str, manifest: Manifest, *, encoder: str, step: str, options: TritonOptions) -> str:
    """Write the ensemble's configuration: a frame in, probabilities out; the features stay in the server."""
    size = manifest.preprocess.size
    return f"""name: "{name}"
platform: "ensemble"
max_batch_size: {options.max_batch}
input {{ name: "frames" data_type: TYPE_UINT8 dims: [{size}, {size}] }}
{_outputs(manifest)}\
ensemble_scheduling {{
  step {{
    model_name: "{encoder}"
    model_version: -1
    input_map {{ key: "frames" value: "frames" }}
    output_map {{ key: "features" value: "features" }}
  }}
  step {{
    model_name: "{step}"
    model_version: -1
    input_map {{ key: "feature" value: "features" }}
    output_map {{ key: "probabilities" value: "probabilities" }}
    output_map {{ key: "next_length" value: "next_length" }}
  }}
}}
"""


_WARM_UP: Final = """\
model_warmup {{
  name: "{size}x{size}, batch {batch}"
  batch_size: {batch}
  inputs {{ key: "frames" value {{ data_type: TYPE_UINT8 dims: [{size}, {size}] random_data: true }} }}
}}
"""


def _model(name: str, options: TritonOptions) -> str:
    platform = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}[options.backend]
    return f"""\
name: "{name}"
backend: "{options.backend}"
platform: "{platform}"
max_batch_size: {options.max_batch}
"""


def _outputs(manifest: Manifest) -> str:
    """The step's outputs. A client may ask for the length: below `window` the estimate uses fewer frames."""
    classes = len(manifest.labels)
    return f"""\
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [{classes}] label_filename: "{LABELS_FILE}" }}
output {{ name: "next_length" data_type: TYPE_INT32 dims: [1] }}
"""


def _state(name: str, data_type: str, dims: str) -> str:
    return f"""\
  state {{
    input_name: "{name}"
    output_name: "next_{name}"
    data_type: {data_type}
    dims: [{dims}]
    initial_state {{ name: "no {name}" data_type: {data_type} dims: [{dims}] zero_data: true }}
  }}
"""


def _instances(options: TritonOptions) -> str:
    group = f"instance_group {{ kind: KIND_{options.device.upper()} count: {options.instances} }}\n"
    if options.device == "gpu":
        return group
    return f'{group}parameters {{ key: "intra_op_thread_count" value {{ string_value: "{options.threads}" }} }}\n'
