"""What a Triton server does with a model repository, as far as its documentation says it, on ONNX Runtime's CPU.

It reads `config.pbtxt` by Triton's own schema, refuses what the ONNX Runtime backend refuses (a tensor that graph and
configuration do not share), keeps implicit state by correlation id and fills in the controls. Time does not pass here:
no sequence is let go for being idle.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from scripts import load_file

Arrays = dict[str, NDArray[Any]]

ONNX_TYPES = {"TYPE_FP32": "tensor(float)", "TYPE_UINT8": "tensor(uint8)", "TYPE_INT32": "tensor(int32)"}
NUMPY_TYPES = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8, "TYPE_INT32": np.int32}


@cache
def schema() -> ModuleType:
    """Triton's `model_config.proto`, compiled; loaded by itself, because its package wants grpc."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs Triton's schema: pip install tritonclient")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compiled by a protobuf one major version older than the one that runs it
        return load_file(path)


def read_config(folder: Path) -> Any:
    """A model's configuration; an unknown field or enumerator is an error, as it is to the server."""
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), schema().ModelConfig())


class ServerError(Exception):
    """What the server answers instead of a result, or why it does not load a model."""


class TritonServer:
    """The models of one repository."""

    def __init__(self, repository: Path) -> None:
        self.configs = {folder.name: read_config(folder) for folder in sorted(repository.iterdir())}
        self._sessions = {}
        self._states: dict[tuple[str, int], Arrays] = {}
        for name, config in self.configs.items():
            if config.name != name or not (repository / name / "1").is_dir():
                raise ServerError(f"{name}: the folder must bear the model's name and hold a version")
            for output in config.output:
                if output.label_filename and not (repository / name / output.label_filename).is_file():
                    raise ServerError(f"{name}: there is no {output.label_filename}")
            if config.platform != "ensemble":
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1
                graph = (repository / name / "1" / "model.onnx").read_bytes()
                session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
                self._sessions[name] = session
                self._check(config, session)

    def infer(
        self, model: str, feeds: Arrays, *, sequence_id: int = 0, start: bool = False, end: bool = False
    ) -> Arrays:
        """One request; its tensors have a batch of 1 where it is part of a sequence."""
        config = self.configs[model]
        if config.platform == "ensemble":
            tensors = dict(feeds)
            for stage in config.ensemble_scheduling.step:
                found = self.infer(
                    stage.model_name,
                    {inner: tensors[outer] for inner, outer in stage.input_map.items()},
                    sequence_id=sequence_id,
                    start=start,
                    end=end,
                )
                tensors.update({outer: found[inner] for inner, outer in stage.output_map.items()})
            return {output.name: tensors[output.name] for output in config.output}
        batch = {len(value) for value in feeds.values()}
        if len(batch) != 1 or max(batch) > config.max_batch_size:
            raise ServerError(f"{model}: got batches of {batch}, at most {config.max_batch_size} go")
        for tensor in config.input:
            value = feeds[tensor.name]
            if value.dtype != _numpy(tensor) or list(value.shape[1:]) != list(tensor.dims):
                raise ServerError(f"{model}: {tensor.name} is {value.dtype} {value.shape}")
        if config.HasField("sequence_batching"):
            feeds = {**feeds, **self._sequence_inputs(config, sequence_id, start=start)}
        session = self._sessions[model]
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, feeds), strict=True))
        if config.HasField("sequence_batching"):
            states = config.sequence_batching.state
            self._states[model, sequence_id] = {state.input_name: found[state.output_name] for state in states}
            if end:
                del self._states[model, sequence_id]
        return {output.name: found[output.name] for output in config.output}

    def _sequence_inputs(self, config: Any, sequence_id: int, *, start: bool) -> Arrays:
        batching, key = config.sequence_batching, (config.name, sequence_id)
        if not sequence_id:
            raise ServerError(f"{config.name}: a request must specify a non-zero correlation id")
        if start:
            self._states[key] = {
                state.input_name: np.zeros([1, *state.initial_state[0].dims], _numpy(state))
                for state in batching.state
                if state.initial_state[0].zero_data
            }
        if key not in self._states:
            raise ServerError(f"{config.name}: sequence {sequence_id} must specify the START flag on its first request")
        kinds = schema().ModelSequenceBatching.Control
        values = {kinds.CONTROL_SEQUENCE_START: start, kinds.CONTROL_SEQUENCE_READY: True}
        controls = {
            control.name: np.array([[control.control[0].int32_false_true[values[control.control[0].kind]]]], np.int32)
            for control in batching.control_input
        }
        return {**controls, **self._states[key]}

    def _check(self, config: Any, session: Any) -> None:
        """As the ONNX Runtime backend does when it loads a model."""
        batching = config.sequence_batching
        control = {each.name: ("TYPE_INT32", [1]) for each in batching.control_input}
        states_in = {state.input_name: (_type(state), list(state.dims)) for state in batching.state}
        states_out = {state.output_name: (_type(state), list(state.dims)) for state in batching.state}
        inputs = {tensor.name: (_type(tensor), list(tensor.dims)) for tensor in config.input}
        outputs = {tensor.name: (_type(tensor), list(tensor.dims)) for tensor in config.output}
        has_in, has_out = ({each.name: each for each in side} for side in (session.get_inputs(), session.get_outputs()))
        wanted = {**inputs, **control, **states_in}
        if set(wanted) != set(has_in):
            raise ServerError(f"{config.name}: the graph takes {sorted(has_in)}, the configuration {sorted(wanted)}")
        for given, found in ((wanted, has_in), ({**outputs, **states_out}, has_out)):
            for name, (kind, dims) in given.items():
                if found[name].type != ONNX_TYPES[kind] or found[name].shape[1:] != dims:
                    raise ServerError(f"{config.name}: {name} is {found[name].type} {found[name].shape} in the graph")


def _type(tensor: Any) -> str:
    return schema().DataType.Name(tensor.data_type)


def _numpy(tensor: Any) -> type[np.generic]:
    return NUMPY_TYPES[_type(tensor)]
