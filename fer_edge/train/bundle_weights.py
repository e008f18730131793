"""Read the weights of a bundle's FP32 graphs back into torch, to train on from a bundle or to use it as a teacher.

The exporter folds batch normalisations into convolutions and fuses layers (`fer_edge.model.deploy`). Here batch
normalisations become neutral, and fused weights are split into weights that fuse to the same. The result is compared
with the graphs (onnx's reference evaluator) and refused where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.bundle import Bundle, Part
from fer_edge.core.errors import InputError, require
from fer_edge.core.json import encode as plain
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.provenance import read_provenance
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.model.weight_fusion import Affine, neutral_batch_norm, split_attention, split_tail
from fer_edge.train.recipe import TrainRecipe, recorded

__all__ = ["BundleWeights"]

_TOLERANCE: Final = 1e-3
"""Largest allowed difference between torch and the graphs, which sum in another order."""

_GATES: Final = (0, 2, 3, 1)
"""Torch orders the gates of an LSTM i, f, c, o; ONNX i, o, f, c."""


@dataclass(frozen=True, kw_only=True)
class BundleWeights:
    """A bundle to start from, or to use as a teacher."""

    bundle: Bundle

    @property
    def identity(self) -> dict[str, Any]:
        """What a run records of it: its hashes and its training."""
        variant = self.bundle.variant("fp32")
        return {
            "bundle": self.bundle.manifest.name,
            "sha256": self.bundle.sha256,
            "graphs": {part: file.sha256 for part, file in variant.parts.items()},
            "training": plain(read_provenance(self.bundle).training),
        }

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.bundle.path

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in output order."""
        return self.bundle.manifest.labels

    @property
    def preprocess(self) -> PreprocessSpec:
        """How faces are prepared."""
        return self.bundle.manifest.preprocess

    @cached_property
    def config(self) -> ModelConfig:
        """The network's shape.

        Raises:
            InputError: the bundle holds another architecture.
        """
        try:
            return recorded(ModelConfig, plain(self.bundle.manifest.model["config"]))
        except (KeyError, InputError) as error:
            raise InputError(
                f"{self.bundle.path}: got no model of this version ({error}), expected an attention CNN-BiLSTM; start "
                "from a training run"
            ) from error

    @cached_property
    def recipe(self) -> TrainRecipe:
        """The recorded training recipe.

        Raises:
            InputError: none is recorded, or one of another architecture.
        """
        try:
            recipe = recorded(TrainRecipe, plain(read_provenance(self.bundle).training["recipe"]))
        except (KeyError, InputError) as error:
            raise InputError(
                f"{self.bundle.path}: got no training recipe of this version ({error}); start from a training run"
            ) from error
        return replace(recipe, model=self.config, preprocess=self.preprocess)

    def load_model(self) -> AttentionCnnBiLstm:
        """Load the network of the bundle's ``fp32`` variant, in evaluation mode.

        Raises:
            InputError: another architecture, or torch and graphs disagree.
            BundleError: the bundle has no ``fp32``, or is damaged.
            MissingPackageError: onnx is not installed.
        """
        variant = self.bundle.variant("fp32")
        model = AttentionCnnBiLstm(self.config, normalisation=self.preprocess.normalisation).eval()
        size, width = self.config.input_size, self.config.feature_size
        draw = np.random.default_rng(0)
        faces = draw.integers(0, 256, (2, size, size), dtype=np.uint8)
        windows = draw.standard_normal((3, 5, width), dtype=np.float32)
        modules: dict[Part, tuple[nn.Module, ModelConfig]] = {
            "encoder": (model.encoder, self.config),
            "head": (model.head, self.config),
        }
        if variant.crowd is not None:
            model.crowd = SequenceHead(self.config.crowd).eval()
            modules["crowd"] = model.crowd, self.config.crowd
        for part, (module, config) in modules.items():
            feed = {"frames": faces} if part == "encoder" else {"features": windows, "length": np.array([1, 3, 5])}
            graph = _Graph(self.bundle.read_graph(variant.parts[part]))
            try:
                module.load_state_dict(dict(_weights(module, graph, config)))
            except (KeyError, RuntimeError) as error:
                reason = str(error).splitlines()[-1].strip()  # torch lists every tensor that does not fit
                raise InputError(
                    f"{self.bundle.path}: the {part} graph is of another version ({reason}); start from a training run"
                ) from error
            _require_parity(module, graph, feed, what=f"{self.bundle.path}: the {part}")
        return model


class _Graph:
    """Constants of an ONNX graph, by name and by the node that reads them."""

    def __init__(self, data: bytes) -> None:
        self._onnx = require("onnx", needed_by="weights of a bundle in torch", extra="train")
        self.model = self._onnx.load_model_from_string(data)
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            tensor.name: self._onnx.numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer
        }

    def affine(self, name: str) -> Affine:
        """Return weight and bias of a linear layer.

        Raises:
            KeyError: there is none of that name.
        """
        weight, bias = (torch.from_numpy(self.constants[f"{name}.{part}"].copy()) for part in ("weight", "bias"))
        return weight, bias

    def read_by(self, node_name: str) -> list[Tensor]:
        """Return the float constants among a node's inputs, in order."""
        for node in self.model.graph.node:
            if node.name == node_name:
                found = [self.constants[name] for name in node.input if name in self.constants]
                return [torch.from_numpy(value.copy()) for value in found if value.dtype == np.float32]
        raise KeyError(f"there is no node {node_name}")

    def convolutions(self) -> list[list[Tensor]]:
        """Return weight and bias of every convolution, in the order of computation."""
        return [self.read_by(node.name) for node in self.model.graph.node if node.op_type == "Conv"]

    def run(self, feed: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """Compute the graph's outputs."""
        evaluator = require("onnx.reference", needed_by="weights of a bundle in torch", extra="train")
        return list(evaluator.ReferenceEvaluator(self.model).run(None, dict(feed)))


def _weights(module: nn.Module, graph: _Graph, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the module's state.

    Raises:
        KeyError: the graph lacks a weight.
    """
    state = module.state_dict()
    split = {key: value.to(state[key].dtype) for key, value in _split(graph, config)}
    yield from split.items()
    convolutions = iter(graph.convolutions())
    for name, part in module.named_modules():
        own = {key: value for key, value in state.items() if key.rpartition(".")[0] == name and key not in split}
        if isinstance(part, nn.Conv2d):
            weight, bias = next(convolutions, (None, None))
            if weight is None or bias is None:
                raise KeyError(f"there is no convolution for {name}")
            yield f"{name}.weight", weight
            normalisation = f"{name.rpartition('.')[0]}.{int(name.rpartition('.')[2]) + 1}"
            yield from neutral_batch_norm(normalisation, torch.ones_like(bias), bias)
        elif isinstance(part, nn.LSTM):
            yield from _lstm(name, graph)
        elif isinstance(part, nn.BatchNorm2d):
            continue  # folded into the convolution before it
        else:
            yield from ((key, _named(key, value, graph)) for key, value in own.items())


def _lstm(name: str, graph: _Graph) -> Iterator[tuple[str, Tensor]]:
    inputs, recurrent, biases = graph.read_by(f"/{name.replace('.', '/')}/LSTM")
    hidden = recurrent.shape[2]
    for direction, suffix in enumerate(("", "_reverse")):
        order = torch.cat([torch.arange(gate * hidden, (gate + 1) * hidden) for gate in _GATES])
        yield f"{name}.weight_ih_l0{suffix}", inputs[direction][order]
        yield f"{name}.weight_hh_l0{suffix}", recurrent[direction][order]
        yield f"{name}.bias_ih_l0{suffix}", biases[direction][: 4 * hidden][order]
        yield f"{name}.bias_hh_l0{suffix}", biases[direction][4 * hidden :][order]


def _split(graph: _Graph, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Split fused weights: the attention, and in a head all layers behind it."""
    attention = split_attention(graph.affine("attention.query"), config.attention_size)
    yield from ((f"attention.{name}", tensor) for name, tensor in attention)
    if "classifier.weight" in graph.constants:
        steps = [graph.affine(f"reconstruction.steps.{index}") for index in range(config.dense_layers)]
        yield from split_tail(steps, graph.affine("classifier"), config)


def _named(key: str, value: Tensor, graph: _Graph) -> Tensor:
    """Return a weight by its own name, or from the matrix product that the exporter makes of a linear layer."""
    if key.endswith("num_batches_tracked"):
        return value
    if key == "shortcut.bias":
        return torch.zeros_like(value)  # moved into the output's normalisation
    if key in graph.constants:
        return torch.from_numpy(graph.constants[key].copy())
    owner, _, name = key.rpartition(".")
    if name != "weight":
        raise KeyError(f"there is no constant {key}")
    return graph.read_by(f"/{owner.replace('.', '/')}/MatMul")[0].T.contiguous()


def _require_parity(module: nn.Module, graph: _Graph, feed: Mapping[str, np.ndarray[Any, Any]], *, what: str) -> None:
    with torch.no_grad():
        computed = module(*(torch.from_numpy(value) for value in feed.values()))
    for expected, got in zip(graph.run(feed), computed, strict=True):
        difference = float(np.abs(expected - got.numpy()).max())
        if not difference <= _TOLERANCE:
            raise InputError(
                f"{what}: torch's outputs differ from the graph's by {difference:.3g}, expected at most "
                f"{_TOLERANCE:g}; the bundle is of another version, start from a training run"
            )
