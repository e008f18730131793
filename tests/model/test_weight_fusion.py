"""Merged weights compute the same in fewer layers, and what they are split into merges to the same again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training import small_config

from fer_edge.model.config import ModelConfig
from fer_edge.model.layers import PointMultiplicationAttention
from fer_edge.model.network import SequenceHead
from fer_edge.model.weight_fusion import merged_attention, merged_tail, split_attention, split_tail, tail_sizes

CONFIGS = {
    "small": small_config(),
    "deep": replace(small_config(), dense_layers=5),
    "narrow": replace(small_config(), dense_growth=3),
    "binary": replace(small_config(), classes=2, discriminants=1),
}


def drawn_head(config: ModelConfig) -> SequenceHead:
    generator = torch.Generator().manual_seed(5)
    head = SequenceHead(config).eval()
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn.square() + 0.1 if "running_var" in name else drawn)
    return head


def split_again(head: SequenceHead, config: ModelConfig) -> SequenceHead:
    again = SequenceHead(config).eval()
    again.load_state_dict({**head.state_dict(), **dict(split_tail(*merged_tail(head, config), config))})
    return again


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_what_follows_the_context_is_split_into_the_same_function(config: ModelConfig) -> None:
    head = drawn_head(config)
    contexts = torch.randn(64, config.feature_size, generator=torch.Generator().manual_seed(6))
    expected = head.classify(contexts)
    steps, (weight, bias) = merged_tail(head, config)
    assert [tuple(matrix.shape)[::-1] for matrix, _ in (*steps, (weight, bias))] == tail_sizes(config)
    known = torch.relu(contexts.double() @ steps[0][0].T + steps[0][1])
    for matrix, offset in steps[1:]:
        known = torch.relu(known @ matrix.T + offset)
    scale = float(expected.abs().max())
    torch.testing.assert_close((known @ weight.T + bias).float(), expected, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(split_again(head, config).classify(contexts), expected, rtol=0, atol=1e-5 * scale)


@torch.no_grad()
def test_a_layer_that_is_looked_at_with_a_scale_of_zero_is_found_in_another() -> None:
    config = small_config()
    head = drawn_head(config)
    first, second, third = (layer.normalise for layer in head.reconstruction.layers[:3])
    first.weight[0] = 0  # a discriminant that the first layer does not look at
    second.weight[config.discriminants] = 0  # an output of the first layer that the second does not
    third.weight[config.discriminants + 1] = 0
    for layer in (second, third):
        layer.weight[config.discriminants + 2] = 0  # one that nobody looks at
    head.classifier.weight[:, config.discriminants + 2] = 0
    contexts = torch.randn(64, config.feature_size, generator=torch.Generator().manual_seed(6))
    expected, got = head.classify(contexts), split_again(head, config).classify(contexts)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_no_unit_of_a_split_layer_is_dead() -> None:
    config = small_config()
    head = split_again(drawn_head(config), config)
    for layer in head.reconstruction.layers:
        assert float(layer.linear.weight.abs().sum(dim=1).min()) > 0.01
    assert float(head.classifier.weight.abs().sum(dim=0).min()) > 0.01


@pytest.mark.parametrize(("width", "size"), [(12, 4), (6, 16)])
@torch.no_grad()
def test_attention_is_split_into_the_same_function(width: int, size: int) -> None:
    torch.manual_seed(7)
    attention, again = (PointMultiplicationAttention(width, size) for _ in range(2))
    moved_by, query, values = torch.randn(width), torch.randn(5, width), torch.randn(5, 9, width)
    again.load_state_dict(dict(split_attention(merged_attention(attention), size)))
    for expected, got in zip(attention(query, values), again(query, values), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    moved = merged_attention(attention, moved_by=moved_by)
    again.load_state_dict(dict(split_attention(moved, size)))
    weights = again(query - moved_by, values - moved_by)[1]
    torch.testing.assert_close(weights, attention(query, values)[1], rtol=1e-4, atol=1e-5)
