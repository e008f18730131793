"""Weights of several layers merged into fewer, and split again: the attention's, and those behind the context.

A bundle's graphs hold merged weights (`fer_edge.model.deploy`). Other weights may merge to the same ones, so what
`split_attention` and `split_tail` give computes the same in evaluation mode and need not be what was trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fer_edge.model.config import ModelConfig
from fer_edge.model.layers import PointMultiplicationAttention
from fer_edge.model.network import SequenceHead

__all__ = ["Affine", "merged_attention", "merged_tail", "split_attention", "split_tail", "tail_sizes"]

Affine = tuple[Tensor, Tensor]
"""Weight (outputs, inputs) and bias (outputs,) of a linear layer."""

_NOISE: Final = 1e-6
"""Singular values below this share of the largest are what FP32 left of zeros."""


def merged_attention(attention: PointMultiplicationAttention, *, moved_by: Tensor | None = None) -> Affine:
    """A query whose products with the values themselves are those of query and keys, scale and all.

    Args:
        attention: not changed.
        moved_by: (W,), what has been taken from query and values alike. All products move together without it, which
            the softmax does not notice; the bias makes up for what the query loses.
    """
    query, keys = attention.query, attention.key.weight.double().T * attention.scale
    bias = query.bias if moved_by is None else query.bias + query.weight @ moved_by
    return keys @ query.weight.double(), keys @ bias.double()


def split_attention(merged: Affine, size: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a `PointMultiplicationAttention` whose queries and keys are `size` wide."""
    weight, bias = merged
    keys, query = _factors(torch.cat((weight, bias.unsqueeze(1)), dim=1).double() * size**0.5, size)
    yield "query.weight", query[:, :-1]
    yield "query.bias", query[:, -1]
    yield "key.weight", keys.T


def merged_tail(head: SequenceHead, config: ModelConfig) -> tuple[list[Affine], Affine]:
    """LDA, DenseNet block and classifier as linear layers with a ReLU between any two: the steps, and the classifier.

    A layer of the block normalises what the LDA and the layers before it gave, cuts it off at zero and weighs it. What
    they give is linear, so each gives it at once as every layer behind it looks at it, scaled and moved. A ReLU lets
    pass again what it has let pass before, and a signed number as two halves, the positive and the negative: so the
    discriminants pass from the first step to the second, and from there on the logits, as far as they are known.

    Args:
        head: not changed.
        config: its shape.
    """
    tail = _Tail(head, config)
    return [tail.step(part) for part in range(config.dense_layers)], tail.logits(config.dense_layers)


def split_tail(steps: Sequence[Affine], classifier: Affine, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a `SequenceHead` behind its context: LDA, DenseNet block and classifier.

    What a layer gives is what it is looked at as where that is largest. The batch normalisations scale and move it for
    the others; their statistics are those of numbers that need neither.

    Args:
        steps: as `merged_tail` gives them.
        classifier: as `merged_tail` gives it.
        config: the head's shape.
    """
    rows = [torch.cat((weight, bias.unsqueeze(1)), dim=1).double() for weight, bias in (*steps, classifier)]
    given, looks = _split_steps(rows[:-1], config)
    linear, trained = _split_logits(rows, given, config)
    projection, bias = given[0]
    yield "lda.projection", projection.T
    # Of all means that the projection sends to this bias the shortest.
    yield "lda.mean", -torch.linalg.lstsq(projection, bias, driver="gelsd").solution
    yield "lda.fitted", torch.ones((), dtype=torch.bool)
    for layer, ((scale, offset), (weight, bias)) in enumerate(zip(looks, linear, strict=True)):
        normalise, weighing = (f"reconstruction.layers.{layer}.{name}" for name in ("normalise", "linear"))
        yield f"{normalise}.weight", scale
        yield f"{normalise}.bias", offset
        yield f"{normalise}.running_mean", torch.zeros_like(scale)
        yield f"{normalise}.running_var", torch.full_like(scale, 1 - 1e-5)  # to which nn.BatchNorm1d adds its epsilon
        yield f"{normalise}.num_batches_tracked", torch.zeros((), dtype=torch.int64)
        yield f"{weighing}.weight", weight
        yield f"{weighing}.bias", bias
    yield "classifier.weight", trained[0]
    yield "classifier.bias", trained[1]


def _split_steps(rows: Sequence[Tensor], config: ModelConfig) -> tuple[list[Affine], list[Tensor]]:
    """What every part is, over the state before its step; and every layer's scales and offsets (2, inputs)."""
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
    """The layers' weights and biases, and the classifier's.

    A step adds to the logits the classifier's share of what its layer gives, and a part of the last layer's weights
    times the share of that. The last layer itself is nowhere by itself: any weights with that product will do.
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
    """Inputs and outputs of the layers that `merged_tail` makes, the classifier last."""
    sizes = [_State(config, part).size for part in range(config.dense_layers)]
    return list(zip([config.feature_size, *sizes], [*sizes, config.classes], strict=True))


def _part(config: ModelConfig, part: int) -> slice:
    """Where a part stands in what the block hands on: part 0 is the discriminants, part i what layer i - 1 gives."""
    end = config.discriminants + part * config.dense_growth
    return slice(end - config.dense_growth if part else 0, end)


class _State:
    """What is known behind a step, number by number: signed numbers in two halves, and what layers look at.

    The last layer's looks go into the logits one step after they were taken; those of the others are kept for their
    layer's own step.
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
        """How a layer looks at a part."""
        return self.looks[look]

    def seen(self, layer: int) -> list[int]:
        """All that a layer looks at, in the order of its weights."""
        slices = [self.looks[layer, part] for part in range(layer + 1)]
        return [index for some in slices for index in range(some.start, some.stop)]


class _Tail:
    """The weights of a head behind its context, in FP64, as rows over the state before a step."""

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
        """What a part is, over the state before its step; the discriminants over the context."""
        if part == 0:
            return self._discriminants
        before, (linear, bias) = self._states[part - 1], self._linear[part - 1]
        weight = torch.zeros(len(linear), before.size, dtype=torch.float64)
        weight[:, before.seen(part - 1)] = linear
        return weight, bias

    def logits(self, part: int) -> Affine:
        """The logits as far as they are known with that part, over the state before its step."""
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
        """The rows of the state behind a step, over the state before it."""
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
    """Of several versions (V, outputs, inputs + 1) of weights and biases the one with most weight, row by row."""
    best = scaled[:, :, :-1].square().sum(dim=2).argmax(dim=0)
    return scaled[best, torch.arange(scaled.shape[1])]


def _factors(product: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Two matrices (rows, width) and (width, columns) with that product, of like size; no column or row is zero."""
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    rank = min(width, len(values))
    root = values[:rank].sqrt()
    left, right = left[:, :rank] * root, root.unsqueeze(1) * right[:rank]
    if rank < width:  # spread over all of them, or some could never learn
        drawn = torch.randn(width, rank, generator=torch.Generator().manual_seed(0), dtype=product.dtype)
        spread = torch.linalg.qr(drawn).Q
        left, right = left @ spread.T, spread @ right
    return left, right
