"""A `.tflite` file in memory: subgraphs, weights and metadata, written by the published flatbuffer schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array

__all__ = ["METADATA_NAME", "LiteRtFile", "Quantization", "Subgraph", "Tensor", "read_facts"]

Options: TypeAlias = "Mapping[str, Any]"

METADATA_NAME: Final = "fer-edge"
"""The name of the entry of the file's metadata that holds the card, as JSON."""

_IDENTIFIER: Final = b"TFL3"
_ALIGNMENT: Final = 16  # the schema's force_align of weights, which the Python packer ignores
_TYPES: Final[Mapping[str, int]] = {
    name: getattr(schema.TensorType, name.upper()) for name in ("float32", "uint8", "int8", "int32", "int64", "bool")
}
_OPTIONS: Final[Mapping[str, str]] = {
    "AVERAGE_POOL_2D": "Pool2D", "MAX_POOL_2D": "Pool2D", "BATCH_MATMUL": "BatchMatMul", "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "FULLY_CONNECTED": "FullyConnected", "MEAN": "Reducer", "SUM": "Reducer",
    "REVERSE_V2": "ReverseV2", "SELECT_V2": "SelectV2",
    "LOGISTIC": "", "RELU": "", "SQRT": "", "TANH": "",
}  # fmt: skip
"""The schema's name of an operator's options where it is not the operator's own; empty where it has none."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Scales of an int8 or int32 tensor: value = scale * (number - zero_point).

    Attributes:
        scales: one, or one for each slice along `axis`.
        zero_point: one for all.
        axis: the dimension that the scales belong to.
    """

    scales: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a subgraph: its index there, shape, NumPy type and scales."""

    index: int
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None


class Subgraph:
    """Tensors and operators of one signature; made by `LiteRtFile.subgraph`."""

    def __init__(self, file: LiteRtFile, name: str) -> None:
        self._file = file
        self.content = schema.SubGraphT()
        self.content.name = name
        self.content.tensors, self.content.operators = [], []
        self._constants: dict[tuple[Any, ...], Tensor] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str, *, quantization: Quantization | None = None, buffer: int = 0
    ) -> Tensor:
        """Add a tensor; buffer 0 holds no data, so that its content is computed or fed."""
        entry = schema.TensorT()
        entry.name, entry.shape, entry.type, entry.buffer = name, list(shape), _TYPES[dtype], buffer
        if quantization is not None:
            scales = schema.QuantizationParametersT()
            scales.scale = np.array(quantization.scales, np.float32)
            scales.zeroPoint = np.full(len(quantization.scales), quantization.zero_point, np.int64)
            scales.quantizedDimension = quantization.axis
            entry.quantization = scales
        self.content.tensors.append(entry)
        index = len(self.content.tensors) - 1
        return Tensor(index=index, shape=tuple(shape), dtype=dtype, quantization=quantization)

    def constant(self, name: str, value: Array, *, quantization: Quantization | None = None) -> Tensor:
        """Add a tensor that holds `value`; equal ones are added once."""
        value = np.ascontiguousarray(value)
        key = (value.dtype.name, value.shape, value.tobytes(), quantization)
        if key not in self._constants:
            self._constants[key] = self.tensor(
                name, value.shape, value.dtype.name, quantization=quantization, buffer=self._file.buffer(key[2])
            )
        return self._constants[key]

    def operator(
        self, kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], options: Options | None = None
    ) -> None:
        """Append an operator of the schema's name, with options by the schema's names."""
        entry = schema.OperatorT()
        entry.opcodeIndex = self._file.code(kind)
        entry.inputs = [tensor.index for tensor in inputs]
        entry.outputs = [tensor.index for tensor in outputs]
        family = _OPTIONS.get(kind, kind.capitalize())
        if family:
            filled = getattr(schema, f"{family}OptionsT")()
            for name, value in (options or {}).items():
                setattr(filled, name, value)
            entry.builtinOptions = filled
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, f"{family}Options")
        self.content.operators.append(entry)


class LiteRtFile:
    """Builds one `.tflite` file; subgraphs share equal weights.

    Args:
        description: one line on the content, which LiteRT's tools show.
    """

    def __init__(self, description: str) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.description = description
        self._model.operatorCodes, self._model.subgraphs, self._model.signatureDefs = [], [], []
        self._model.buffers, self._model.metadata = [_buffer(b"")], []
        self._codes: dict[str, int] = {}
        self._buffers: dict[bytes, int] = {}

    def subgraph(self, name: str) -> Subgraph:
        """Add an empty subgraph; `sign` completes it."""
        made = Subgraph(self, name)
        self._model.subgraphs.append(made.content)
        return made

    def sign(self, subgraph: Subgraph, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Name the inputs and outputs of a subgraph; its signature has the subgraph's name."""
        subgraph.content.inputs = [tensor.index for tensor in inputs.values()]
        subgraph.content.outputs = [tensor.index for tensor in outputs.values()]
        signature = schema.SignatureDefT()
        signature.signatureKey = subgraph.content.name
        signature.subgraphIndex = self._model.subgraphs.index(subgraph.content)
        signature.inputs, signature.outputs = _tensor_map(inputs), _tensor_map(outputs)
        self._model.signatureDefs.append(signature)

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Store facts on the model as JSON, under `METADATA_NAME`."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = METADATA_NAME, self.buffer(json.dumps(facts, sort_keys=True).encode())
        self._model.metadata.append(entry)

    def write(self) -> bytes:
        """Serialise; the same content gives the same bytes."""
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def buffer(self, data: bytes) -> int:
        """Return the number of the buffer that holds `data`, which is stored once."""
        if data not in self._buffers:
            self._buffers[data] = len(self._model.buffers)
            self._model.buffers.append(_buffer(data))
        return self._buffers[data]

    def code(self, kind: str) -> int:
        """Return the index of an operator's code."""
        if kind not in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = getattr(schema.BuiltinOperator, kind)
            entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
            entry.version = _VERSIONS.get(kind, 1)
            self._codes[kind] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(entry)
        return self._codes[kind]


_VERSIONS: Final[Mapping[str, int]] = {
    # The first versions that take int8, per-channel scales or kept dimensions: an older LiteRT refuses the file.
    "ADD": 2, "BATCH_MATMUL": 1, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 5,
    "FULLY_CONNECTED": 5, "MAX_POOL_2D": 2, "MEAN": 2, "QUANTIZE": 1, "SLICE": 2, "TRANSPOSE": 2,
}  # fmt: skip


def read_facts(data: bytes, *, name: str) -> dict[str, Any]:
    """Read what `LiteRtFile.describe` stored.

    Args:
        data: the file's bytes.
        name: the file's name in messages.

    Raises:
        InputError: no LiteRT file, or one of another program.
    """
    if data[4:8] != _IDENTIFIER:
        raise InputError(f"{name}: got no LiteRT file, expected one; make it with: fer-edge export --target litert")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        held = {entry.name.decode(): model.buffers[entry.buffer].data for entry in model.metadata or ()}
        return dict(json.loads(bytes(held[METADATA_NAME])))
    except Exception as error:  # the reader of a damaged file raises anything
        raise InputError(f"{name}: got no entry {METADATA_NAME!r} in the metadata, expected a card") from error


def _buffer(data: bytes) -> Any:
    entry = _AlignedBuffer()
    entry.data = data or None
    return entry


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data begins at a multiple of 16 bytes, as the schema demands."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's name
        place = None
        if self.data:
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return schema.BufferEnd(builder)


def _tensor_map(named: Mapping[str, Tensor]) -> list[Any]:
    entries = []
    for name, tensor in named.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor.index
        entries.append(entry)
    return entries
