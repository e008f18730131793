"""Initial weights from a trained network of another shape: deeper, wider or narrower.

Larger: as in Net2Net (Chen et al. 2016, arXiv 1511.05641), the new network computes the old one's function. Narrower:
keeps the filters with the largest batch normalisation scale (Liu et al. 2017, arXiv 1708.06519), the strongest hidden
units and attention columns; the function changes, the training that follows starts from trained filters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from fer_edge.model.cnn import FrameCNN, ResidualBlock
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.importance import Ranking

__all__ = ["can_grow", "can_shrink", "can_transfer", "grown", "narrowed", "shrunk", "transfer"]


def can_transfer(config: ModelConfig, given: ModelConfig) -> bool:
    """Whether `transfer` makes the shape `config` from the shape `given`."""
    return can_grow(config, given) or can_shrink(config, given)


@torch.no_grad()
def transfer(
    model: AttentionCnnBiLstm, probe: nn.Linear | None, config: ModelConfig
) -> tuple[AttentionCnnBiLstm, nn.Linear | None]:
    """Return the network in another shape, and its linear probe, if there is one.

    Args:
        model: trained, its batch normalisations not folded; not changed.
        config: a shape that `can_transfer` from the network's own.
    """
    if can_grow(config, model.config):
        return grown(model, config), probe
    smaller, narrow_probe = shrunk(model, probe or nn.Linear(model.config.feature_size, config.classes), config)
    return smaller, None if probe is None else narrow_probe


def can_grow(config: ModelConfig, smaller: ModelConfig) -> bool:
    """Whether `config` is `smaller` with further residual blocks or a wider CNN, or with neither."""
    stages = zip(config.blocks, smaller.blocks, strict=True)
    return (
        replace(config, channels=smaller.channels, blocks=smaller.blocks) == smaller
        and all(map(int.__ge__, config.channels, smaller.channels))
        and all(len(large) >= len(small) and all(map(int.__ge__, large, small)) for large, small in stages)
    )


@torch.no_grad()
def grown(model: AttentionCnnBiLstm, config: ModelConfig) -> AttentionCnnBiLstm:
    """Return the same function in a deeper or wider network.

    A new residual block starts as the identity: its last batch normalisation scales by zero. A new filter starts as in
    a fresh network, and the old ones weigh it by zero; unlike a copied filter it has no twin with equal gradients.

    Args:
        model: the trained network; returned as it is where the shape is its own.
        config: a shape that `can_grow` from the network's own.
    """
    if config == model.config:
        return model
    larger = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    state = larger.state_dict()
    for name, value in model.state_dict().items():
        state[name] = _padded(value, state[name])
    larger.load_state_dict(state)
    return larger


def _padded(value: Tensor, fresh: Tensor) -> Tensor:
    """Put a tensor into a larger one; its rows weigh the new inputs by zero."""
    if value.shape == fresh.shape:
        return value
    padded = fresh.clone()
    padded[: len(value)] = 0
    padded[tuple(map(slice, value.shape))] = value
    return padded


def can_shrink(config: ModelConfig, larger: ModelConfig) -> bool:
    """Whether `config` is `larger` with narrower layers.

    A stage may have fewer residual blocks at its end, or further ones, which start as the identity. The DenseNet block
    may have any shape: it is trained again behind every LDA.
    """
    free = ("channels", "blocks", "spatial_hidden", "temporal_hidden", "attention_size", "dense_layers", "dense_growth")
    stages = zip(config.blocks, larger.blocks, strict=True)
    return (
        replace(larger, **{name: getattr(config, name) for name in free}) == config
        and all(map(int.__le__, config.channels, larger.channels))
        and all(all(map(int.__le__, narrow, wide)) for narrow, wide in stages)
        and config.spatial_hidden <= larger.spatial_hidden
        and config.attention_size <= larger.attention_size
    )


@torch.no_grad()
def shrunk(model: AttentionCnnBiLstm, probe: nn.Linear, config: ModelConfig) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """Return a narrower network of a given shape, and its linear probe.

    Args:
        model: the trained network, its batch normalisations not folded; not changed.
        config: a shape that `can_shrink` from the network's own.
    """
    cnn = FrameCNN(config)
    kept = torch.zeros(1, dtype=torch.int64)
    for source, target in zip(model.encoder.cnn.children(), cnn.children(), strict=True):
        layers, narrow_layers = list(source.children()), list(target.children())
        blocks = list(zip(_blocks(layers), _blocks(narrow_layers), strict=False))
        scale = _scale(_convolutions(layers)[-1][1]) + sum(_scale(block.reduce[1]) for block, _ in blocks)
        inputs, kept = kept, _largest(scale, len(_scale(_convolutions(narrow_layers)[-1][1])))
        _copy(layers, narrow_layers, inputs, kept)
        for block, narrow in blocks:
            inner = _largest(_scale(block.expand[1]), narrow.width)
            _copy(block.expand, narrow.expand, kept, inner)
            _copy(block.depthwise.children(), narrow.depthwise.children(), inner, inner)
            _copy(block.reduce, narrow.reduce, inner, kept)
    return narrowed(model, probe, config, cnn=cnn, filters=kept, ranking=Ranking(importance="bn-scale"))


def _blocks(layers: list[nn.Module]) -> list[ResidualBlock]:
    return [layer for layer in layers if isinstance(layer, ResidualBlock)]


def _scale(norm: nn.Module) -> Tensor:
    return norm.get_parameter("weight").abs()


def _largest(scores: Tensor, count: int) -> Tensor:
    """Indices of the largest scores, ascending."""
    return scores.topk(count).indices.sort().values


def _convolutions(layers: Iterable[nn.Module]) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Every convolution among the layers, with the batch normalisation behind it."""
    return [(layer, norm) for layer, norm in pairwise(layers) if isinstance(layer, nn.Conv2d)]


def _copy(source: Iterable[nn.Module], target: Iterable[nn.Module], inputs: Tensor, outputs: Tensor) -> None:
    """Copy the kept filters of convolutions and of the batch normalisation behind each.

    Args:
        source: a convolution, or a depthwise one before a pointwise one, among their other layers.
        target: the same, narrower.
        inputs: int64, kept input channels of the first one.
        outputs: int64, kept filters of the last one.
    """
    for (convolution, norm), (smaller, smaller_norm) in zip(_convolutions(source), _convolutions(target), strict=True):
        depthwise = convolution.groups > 1
        kept, weight = (inputs if depthwise else outputs), convolution.weight
        smaller.load_state_dict({"weight": weight[kept] if depthwise else weight[kept][:, inputs]})
        state = norm.state_dict()
        smaller_norm.load_state_dict({name: value[kept] if value.ndim else value for name, value in state.items()})


@torch.no_grad()
def narrowed(
    model: AttentionCnnBiLstm,
    probe: nn.Linear,
    config: ModelConfig,
    *,
    cnn: FrameCNN,
    filters: Tensor,
    ranking: Ranking,
) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """Return the network around a narrower CNN, with the matching rows and columns of all other tensors.

    Args:
        config: the narrower shape.
        cnn: of that shape, with its weights.
        filters: int64, the kept channels of the model's last feature map.
        ranking: ranks hidden units.
    """
    result = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    units, hidden = _units(model, config.spatial_hidden, ranking), model.config.spatial_hidden
    columns = torch.cat((units[0], units[1] + hidden))
    state = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("encoder.cnn.")}
    state |= {f"encoder.cnn.{name}": tensor for name, tensor in cnn.state_dict().items()}
    for part, inputs in (("encoder", filters), ("head", columns)):
        _narrow_lstm(state, f"{part}.bilstm.lstm", inputs, units, hidden)
        _narrow_attention(state, f"{part}.attention", columns, config.attention_size)
    state["encoder.shortcut.weight"] = state["encoder.shortcut.weight"][columns][:, filters]
    outputs = [f"encoder.output.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    for name in ("encoder.shortcut.bias", *outputs, "head.lda.mean", "head.lda.projection"):
        state[name] = state[name][columns]
    if (config.dense_layers, config.dense_growth) != (model.config.dense_layers, model.config.dense_growth):
        fresh = ("head.reconstruction.", "head.classifier.")
        state |= {name: value for name, value in result.state_dict().items() if name.startswith(fresh)}
    result.load_state_dict({name: state[name] for name in result.state_dict()})
    classifier = nn.Linear(config.feature_size, config.classes)
    classifier.load_state_dict({"weight": probe.weight[:, columns], "bias": probe.bias})
    return result.eval(), classifier


def _units(model: AttentionCnnBiLstm, keep: int, ranking: Ranking) -> tuple[Tensor, Tensor]:
    """Choose hidden units by the importance of all weights that write or read them: int64 (keep,) a direction."""
    hidden, state = model.config.spatial_hidden, model.state_dict()

    def importance(name: str) -> Tensor:
        return ranking.of_weights(state, name)

    readers = [
        importance("encoder.shortcut.weight").T,
        importance("encoder.output.weight").unsqueeze(0),
        *(importance(f"{part}.attention.{name}.weight") for part in ("encoder", "head") for name in ("query", "key")),
        *(importance(f"head.bilstm.lstm.weight_ih_l0{suffix}") for suffix in ("", "_reverse")),
    ]
    scores = torch.stack([each.sum(dim=0) for each in readers]).sum(dim=0)
    kept = []
    for direction, suffix in enumerate(("", "_reverse")):
        score = scores[direction * hidden : (direction + 1) * hidden].clone()
        for part in ("encoder", "head"):
            for name in ("weight_ih_l0", "weight_hh_l0"):
                rows = importance(f"{part}.bilstm.lstm.{name}{suffix}").sum(dim=1)
                score += rows.view(4, hidden).sum(dim=0)
        kept.append(_largest(score, keep))
    return kept[0], kept[1]


def _narrow_lstm(
    state: dict[str, Tensor], prefix: str, inputs: Tensor, units: tuple[Tensor, Tensor], hidden: int
) -> None:
    """Keep some inputs and hidden units of a BiLSTM."""
    for suffix, kept in zip(("", "_reverse"), units, strict=True):
        gates = torch.cat([kept + gate * hidden for gate in range(4)])
        columns: Mapping[str, Tensor | slice] = {
            "weight_ih_l0": inputs, "weight_hh_l0": kept, "bias_ih_l0": slice(None), "bias_hh_l0": slice(None),
        }  # fmt: skip
        for name, column in columns.items():
            rows = state[f"{prefix}.{name}{suffix}"][gates]
            state[f"{prefix}.{name}{suffix}"] = rows if rows.ndim == 1 else rows[:, column]


def _narrow_attention(state: dict[str, Tensor], prefix: str, columns: Tensor, size: int) -> None:
    """Keep some input columns, and the `size` strongest query-key pairs."""
    query, key = (state[f"{prefix}.{name}.weight"][:, columns] for name in ("query", "key"))
    kept = _largest((query * key).square().sum(dim=1), size)
    state[f"{prefix}.query.weight"], state[f"{prefix}.key.weight"] = query[kept], key[kept]
    state[f"{prefix}.query.bias"] = state[f"{prefix}.query.bias"][kept]
