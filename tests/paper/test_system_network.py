"""Every system's network: its shape, its parts, its cost."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from training import small_config

from fer_edge.core.errors import InputError
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.model.weight_fusion import tail_sizes
from fer_edge.paper.system_network import SystemNetwork, count_macs, system_config
from fer_edge.paper.systems import SYSTEMS, System, chosen_systems

pytestmark = pytest.mark.train

# Sixteen pixels leave a feature map of two by two: grids of one and two cells fit it.
FITTING = {"tokens-36": {"token_grid": 1}, "complete-128": {"input_size": 32, "token_grid": 4}}


def small(name: str) -> System:
    return dataclasses.replace(SYSTEMS[name], **FITTING.get(name, {}))


def network(name: str) -> SystemNetwork:
    torch.manual_seed(0)
    return SystemNetwork(small(name), small_config(), dropout=0.0).eval()


def faces(size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (5, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class TestSystems:
    def test_the_papers_tables_hold_what_the_paper_lists(self) -> None:
        rows = {table: [s.name for s in SYSTEMS.values() if table in s.tables] for table in (1, 2, 3)}
        assert rows[1] == ["complete", "no-features", "no-attention", "no-reconstruction"]
        assert set(rows[2]) == {"complete", "cnn-lstm", "dscnn-lstm", "cnn-bilstm", "acnn-lstm"}
        assert set(rows[3]) == {"complete", "cnn-lstm", "cnn-bilstm", "acnn-lstm", "cnn-svm"}

    def test_are_chosen_by_name_or_group_in_the_order_of_the_tables(self) -> None:
        chosen = [system.name for system in chosen_systems(["cnn-svm", "beyond", "complete"])]
        assert chosen[:2] == ["complete", "cnn-svm"]
        assert "no-lda" in chosen

    def test_an_unknown_name_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(InputError, match=r"system: got 'cnn-gru', expected one of complete, .*, or tables"):
            chosen_systems(["cnn-gru"])


class TestNetwork:
    @pytest.mark.parametrize("name", SYSTEMS)
    def test_gives_logits_from_both_stages_and_every_part_takes_part(self, name: str) -> None:
        made = network(name).train()
        images = faces(32 if name == "complete-128" else 16)
        logits, context = made(images)
        assert logits.shape == (5, 7)
        assert context.shape == (5, made.temporary.in_features)
        final = made.classify(context)
        assert final.shape == (5, 7)
        (logits.square().sum() + final.square().sum()).backward()
        assert [key for key, each in made.named_parameters() if each.grad is None] == []

    def test_complete_is_the_deployed_network_on_one_frame(self) -> None:
        made = network("complete")
        deployed = AttentionCnnBiLstm(small_config()).eval()
        deployed.encoder.load_state_dict(made.trunk.encoder.state_dict())
        deployed.head.bilstm.load_state_dict(made.trunk.bilstm.state_dict())
        features, _ = deployed.encoder(faces())
        context, _ = deployed.head.context(features.unsqueeze(1), torch.ones(5, dtype=torch.int64))
        torch.testing.assert_close(made.trunk(faces()), context)

    def test_complete_costs_what_the_deployed_network_costs(self) -> None:
        """But for the head's attention over one frame, which gives that frame, and for what a graph merges."""
        config = small_config()
        width, tokens, size = config.feature_size, config.tokens, config.attention_size
        # Queries and keys are layers of the spatial attention; means over regions are a product in a graph alone.
        attention = width * size * (tokens + 1)
        merged = width * width + 2 * tokens * width + config.map_size**2 * tokens * config.channels[-1]
        known = [config.discriminants + layer * config.dense_growth for layer in range(config.dense_layers + 1)]
        tail = width * known[0] + sum(known[:-1]) * config.dense_growth + known[-1] * config.classes
        merged_tail = sum(inputs * outputs for inputs, outputs in tail_sizes(config))
        head = head_macs(config, 1) - (width * width + 2 * width) - merged_tail + tail
        assert count_macs(network("complete"), 16) == encoder_macs(config) - merged + attention + head

    def test_without_attention_every_region_counts_alike(self) -> None:
        _, weights = network("no-attention").trunk.encoder(faces())
        torch.testing.assert_close(weights, torch.full((5, 4), 0.25))

    def test_without_feature_extraction_no_convolution_is_left(self) -> None:
        assert [m for m in network("no-features").modules() if isinstance(m, nn.Conv2d)] == []

    def test_a_separable_cnn_is_depthwise_and_lighter(self) -> None:
        made = network("dscnn-lstm")
        assert any(m.groups == m.in_channels > 1 for m in made.modules() if isinstance(m, nn.Conv2d))
        assert count_macs(made, 16) < count_macs(network("cnn-lstm"), 16)

    def test_one_direction_and_two_are_equally_wide(self) -> None:
        widths = {name: network(name).temporary.in_features for name in ("cnn-lstm", "cnn-bilstm", "one-direction")}
        assert set(widths.values()) == {small_config().feature_size}

    def test_a_systems_changes_reach_the_shape(self) -> None:
        base = small_config()
        assert system_config(small("hidden-32"), base).feature_size == 64
        assert system_config(small("tokens-1"), base).tokens == 1
        assert network("layers-2").trunk.encoder.bilstm.lstm.num_layers == 2

    def test_dropping_a_part_drops_its_layers(self) -> None:
        assert network("no-lda").tail.lda is None
        assert network("no-reconstruction").tail.reconstruction is None
        assert network("cnn-bilstm").tail is None
