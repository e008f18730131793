"""Fuse the weights of several layers into fewer, and split them again: attention, and the layers behind the context.

The graphs of a bundle hold fused weights (`fer_edge.model.deploy`). Splitting is not unique: the split weights compute
the same function in evaluation mode, but need not be those that were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fer_edge.model.config import ModelConfig
from fer_edge.model.layers import PointMultiplicationAttention
from fer_edge.model.network import SequenceHead

__all__ = [
    "Affine",
    "merged_attention",
    "merged_tail",
    "neutral_batch_norm",
    "split_attention",
    "split_tail",
    "tail_sizes",
]

Affine = tuple[Tensor, Tensor]
"""Weight (outputs, inputs) and bias (outputs,) of a linear layer."""

_NOISE: Final = 1e-6
"""Singular values below this share of the largest are zeros with FP32 rounding."""


def neutral_batch_norm(name: str, weight: Tensor, bias: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the state of a batch normalisation that computes ``weight * x + bias``."""
    yield f"{name}.weight", weight
    yield f"{name}.bias", bias
    yield f"{name}.running_mean", torch.zeros_like(bias)
    yield f"{name}.running_var", torch.full_like(bias, 1 - 1e-5)  # the layer adds its epsilon
    yield f"{name}.num_batches_tracked", torch.zeros((), dtype=torch.int64, device=bias.device)


def merged_attention(attention: PointMultiplicationAttention, *, moved_by: Tensor | None = None) -> Affine:
    """Fuse query, key and scale into one query, whose products with the values themselves are the same.

    Args:
        attention: not changed.
        moved_by: (W,), an offset removed from query and values. It shifts all products alike, which the softmax
            ignores, and the bias compensates for the query's part.
    """
    query, keys = attention.query, attention.key.weight.double().T * attention.scale
    bias = query.bias if moved_by is None else query.bias + query.weight @ moved_by
    return keys @ query.weight.double(), keys @ bias.double()


def split_attention(merged: Affine, size: int) -> Iterator[tuple[str, Tensor]]:
    """Split a fused query into the tensors of a `PointMultiplicationAttention` of width `size`."""
    weight, bias = merged
    keys, query = _factors(torch.cat((weight, bias.unsqueeze(1)), dim=1).double() * size**0.5, size)
    yield "query.weight", query[:, :-1]
    yield "query.bias", query[:, -1]
    yield "key.weight", keys.T


def merged_tail(head: SequenceHead, config: ModelConfig) -> tuple[list[Affine], Affine]:
    """Fuse LDA, DenseNet block and classifier into linear layers with a ReLU after each but the last.

    Every layer of the block normalises, rectifies and weighs the outputs of the LDA and of all layers before it. Since
    these are linear, each step computes them already scaled and shifted for every later layer. A ReLU passes what an
    earlier ReLU passed, and signed numbers pass as a positive and a negative half: the discriminants from the first
    step to the second, the partial logits from there on.

    Args:
        head: not changed.

    Returns:
        the steps, and the classifier.
    """
    tail = _Tail(head, config)
    return [tail.step(part) for part in range(config.dense_layers)], tail.logits(config.dense_layers)


def split_tail(steps: Sequence[Affine], classifier: Affine, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Split fused layers into the tensors of a `SequenceHead` behind its context: LDA, DenseNet block, classifier.

    A layer's output is taken from the later layer that scales it most; batch normalisations with neutral statistics
    scale and shift it for the others.

    Args:
        steps: as `merged_tail` gives them.
        classifier: as `merged_tail` gives it.
    """
    rows = [torch.cat((weight, bias.unsqueeze(1)), dim=1).double() for weight, bias in (*steps, classifier)]
    given, looks = _split_steps(rows[:-1], config)
    linear, trained = _split_logits(rows, given, config)
    projection, bias = given[0]
    yield "lda.projection", projection.T
    # The shortest of all means that the projection maps to this bias.
    yield "lda.mean", -torch.linalg.lstsq(projection, bias, driver="gelsd").solution
    yield "lda.fitted", torch.ones((), dtype=torch.bool)
    for layer, ((scale, offset), (weight, bias)) in enumerate(zip(looks, linear, strict=True)):
        prefix = f"reconstruction.layers.{layer}"
        yield from neutral_batch_norm(f"{prefix}.normalise", scale, offset)
        yield f"{prefix}.linear.weight", weight
        yield f"{prefix}.linear.bias", bias
    yield "classifier.weight", trained[0]
    yield "classifier.bias", trained[1]


def _split_steps(rows: Sequence[Tensor], config: ModelConfig) -> tuple[list[Affine], list[Tensor]]:
    """Return each part as a function of the state before its step, and each layer's scales and offsets (2, inputs)."""
    given, looks = [], [torch.zeros(2, _part(config, layer).stop).double() for layer in range(config.dense_layers)]
    for part, step in enumerate(rows):
        state = _State(config, part)
        seen = {layer: step[state[layer, part]] for layer in range(part, config.dense_layers)}
        own = _largest(torch.stack([*seen.values()])) if part else step[state.positive]
        weight, bias = own[:, :-1], own[:, -1]
        given.append((weight, bias))
        for layer, scaled in seen.items():
            scale = (scaled[:, :-1] * weight).sum(dim=1) / weight.square().sum(dim=1).clamp(min=1e-30)
            looks[layer][:, _part(config, part)] = torch.stack((scale, scaled[:, -1] - scale * bias))
    return given, looks


def _split_logits(rows: Sequence[Tensor], given: Sequence[Affine], config: ModelConfig) -> tuple[list[Affine], Affine]:
    """Return the layers' weights and biases, and the classifier's.

    A step adds its layer's share of the logits, and a part of the last layer's weights times that layer's share. Only
    the product of the last layer's weights and share is known: any factors will do.
    """
    states = [_State(config, part) for part in range(config.dense_layers)]
    known = [*(step[state.positive] for step, state in zip(rows[1:], states[1:], strict=False)), rows[-1]]
    shares, linear = [known[0][:, states[0].positive]], []
    constant = torch.stack([logits[:, -1] for logits in known]).sum(dim=0)
    for layer, (weight, bias) in enumerate(given[1:]):
        columns = states[layer].seen(layer)
        linear.append((weight[:, columns], bias))
        wanted = known[layer][:, columns].T
        shares.append(torch.linalg.lstsq(linear[-1][0].T, wanted, rcond=_NOISE, driver="gelsd").solution.T)
        constant = constant - shares[-1] @ bias
    pairs = zip(known, states, strict=True)
    last = [logits[:, state[config.dense_layers - 1, part]] for part, (logits, state) in enumerate(pairs)]
    share, weight = _factors(torch.cat(last, dim=1), config.dense_growth)
    linear.append((weight, torch.zeros(config.dense_growth)))
    return linear, (torch.cat((*shares, share), dim=1), constant)


def tail_sizes(config: ModelConfig) -> list[tuple[int, int]]:
    """Return inputs and outputs of the layers of `merged_tail`, the classifier last."""
    sizes = [_State(config, part).size for part in range(config.dense_layers)]
    return list(zip([config.feature_size, *sizes], [*sizes, config.classes], strict=True))


def _part(config: ModelConfig, part: int) -> slice:
    """Return the columns of a part in the block's output: 0 is the discriminants, i the output of layer i - 1."""
    end = config.discriminants + part * config.dense_growth
    return slice(end - config.dense_growth if part else 0, end)


class _State:
    """Layout of the values after a step: signed numbers in two halves, and the inputs of later layers.

    Inputs of the last layer enter the logits in the next step; those of the others are kept until their layer's step.
    """

    def __init__(self, config: ModelConfig, step: int) -> None:
        signed = config.classes if step else config.discriminants
        self.positive, self.negative, self.size = slice(0, signed), slice(signed, 2 * signed), 2 * signed
        self.looks: dict[tuple[int, int], slice] = {}
        last = config.dense_layers - 1
        for layer, part in ((layer, part) for layer in range(step, last) for part in range(step + 1)):
            self._add(config, layer, part)
        self._add(config, last, step)

    def _add(self, config: ModelConfig, layer: int, part: int) -> None:
        of = _part(config, part)
        self.looks[layer, part] = slice(self.size, self.size + of.stop - of.start)
        self.size += of.stop - of.start

    def __getitem__(self, look: tuple[int, int]) -> slice:
        """Return the place of a part as a layer's input."""
        return self.looks[look]

    def seen(self, layer: int) -> list[int]:
        """Return all inputs of a layer, in the order of its weights."""
        slices = [self.looks[layer, part] for part in range(layer + 1)]
        return [index for some in slices for index in range(some.start, some.stop)]


class _Tail:
    """Weights of a head behind its context, in FP64, as rows over the state before a step."""

    def __init__(self, head: SequenceHead, config: ModelConfig) -> None:
        self._config = config
        self._states = [_State(config, part) for part in range(config.dense_layers)]
        projection = head.lda.projection.double().T
        self._discriminants = (projection, -projection @ head.lda.mean.double())
        layers = [*head.reconstruction.each_layer()]
        self._linear = [(layer.linear.weight.double(), layer.linear.bias.double()) for layer in layers]
        self._looks = [_scale_and_offset(layer.normalise) for layer in layers]
        self._classifier, self._bias = head.classifier.weight.double(), head.classifier.bias.double()

    def given(self, part: int) -> Affine:
        """Return a part over the state before its step; the discriminants over the context."""
        if part == 0:
            return self._discriminants
        before, (linear, bias) = self._states[part - 1], self._linear[part - 1]
        weight = torch.zeros(len(linear), before.size, dtype=torch.float64)
        weight[:, before.seen(part - 1)] = linear
        return weight, bias

    def logits(self, part: int) -> Affine:
        """Return the partial logits with that part, over the state before its step."""
        config, before = self._config, self._states[part - 1]
        share, (linear, bias) = self._classifier[:, _part(config, config.dense_layers)], self._linear[-1]
        first = part == 1
        passed = self._classifier[:, _part(config, 0)] if first else torch.eye(config.classes, dtype=torch.float64)
        weight = torch.zeros(config.classes, before.size, dtype=torch.float64)
        weight[:, before.positive], weight[:, before.negative] = passed, -passed
        weight[:, before[config.dense_layers - 1, part - 1]] = share @ linear[:, _part(config, part - 1)]
        constant = self._bias + share @ bias if first else torch.zeros_like(self._bias)
        if part < config.dense_layers:
            share, (linear, bias) = self._classifier[:, _part(config, part)], self.given(part)
            weight, constant = weight + share @ linear, constant + share @ bias
        return weight, constant

    def step(self, part: int) -> Affine:
        """Return the rows of the state after a step, over the state before it."""
        after, own = self._states[part], self.given(part)
        signed = self.logits(part) if part else own
        weight = torch.zeros(after.size, own[0].shape[1], dtype=torch.float64)
        bias = torch.zeros(after.size, dtype=torch.float64)
        weight[after.positive], bias[after.positive] = signed
        weight[after.negative], bias[after.negative] = -signed[0], -signed[1]
        for (layer, of), rows in after.looks.items():
            if of == part:
                scale, offset = (value[_part(self._config, of)] for value in self._looks[layer])
                weight[rows], bias[rows] = scale.unsqueeze(1) * own[0], scale * own[1] + offset
            else:
                weight[rows, self._states[part - 1][layer, of]] = torch.eye(rows.stop - rows.start, dtype=torch.float64)
        return weight, bias


def _scale_and_offset(norm: nn.BatchNorm1d) -> Affine:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _largest(scaled: Tensor) -> Tensor:
    """Choose the version with the largest weights, row by row, from (V, outputs, inputs + 1)."""
    best = scaled[:, :, :-1].square().sum(dim=2).argmax(dim=0)
    return scaled[best, torch.arange(scaled.shape[1])]


def _factors(product: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Factor a product into (rows, width) and (width, columns) of similar size, without zero columns or rows."""
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    rank = min(width, len(values))
    root = values[:rank].sqrt()
    left, right = left[:, :rank] * root, root.unsqueeze(1) * right[:rank]
    if rank < width:  # spread over the full width, since zero rows have no gradient
        drawn = torch.randn(width, rank, generator=torch.Generator().manual_seed(0), dtype=product.dtype)
        spread = torch.linalg.qr(drawn).Q
        left, right = left @ spread.T, spread @ right
    return left, right
