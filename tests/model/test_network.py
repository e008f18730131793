"""The network's parts: shapes, masks, attention, and the numpy and OpenCV references they must equal."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from normalisation import normalise
from training import small_config

from fer_edge.core.errors import RecipeError
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.recipes import load_recipe
from fer_edge.model.config import ModelConfig
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.model.layers import PixelNormalisation
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.augment import median_filter
from fer_edge.train.recipe import TrainRecipe

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def model() -> AttentionCnnBiLstm:
    torch.manual_seed(1)
    return AttentionCnnBiLstm(small_config()).eval()


def faces(count: int, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


@pytest.mark.parametrize("preset", ["edge", "paper"])
def test_presets_have_every_part_and_at_most_three_million_parameters(preset: str) -> None:
    recipe = load_recipe(TrainRecipe, preset, room="train")
    model = AttentionCnnBiLstm(recipe.model, normalisation=recipe.preprocess.normalisation).eval()
    logits = model(faces(4, recipe.model.input_size).unflatten(0, (2, 2)), torch.tensor([1, 2]))
    assert logits.shape == (2, 7)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    convolutions = [stage[0] for stage in model.encoder.cnn]
    assert len(convolutions) == 4
    assert len(model.head.reconstruction.layers) >= 3


def test_paper_preset_is_the_papers() -> None:
    recipe = load_recipe(TrainRecipe, "paper", room="train")
    assert (recipe.preprocess.size, recipe.preprocess.median, recipe.preprocess.normalisation) == (128, 3, "gcn")
    assert recipe.model.blocks == ((), (), (), ())


@pytest.mark.parametrize("normalisation", ["gcn", "scale"])
def test_normalisation_equals_numpys(normalisation: str) -> None:
    images = np.concatenate([faces(5).numpy(), np.full((1, 16, 16), 77, np.uint8)])
    spec = PreprocessSpec(size=16, normalisation=normalisation)
    got = PixelNormalisation(normalisation)(torch.from_numpy(images)).squeeze(1).numpy()
    np.testing.assert_allclose(got, normalise(images, spec), atol=1e-5)
    if normalisation == "gcn":
        np.testing.assert_allclose(got[-1], 0, atol=1e-3)


@pytest.mark.parametrize("kernel", [0, 3, 5])
def test_median_equals_opencvs_bit_for_bit(kernel: int) -> None:
    images = faces(6, 23)
    expected = images.numpy() if kernel == 0 else np.stack([cv2.medianBlur(image, kernel) for image in images.numpy()])
    np.testing.assert_array_equal(median_filter(images, kernel).numpy(), expected)


def test_attention_is_a_weighted_mean(model: AttentionCnnBiLstm) -> None:
    with torch.no_grad():
        features, attention = model.encoder(faces(3))
        context, frames = model.head.context(features.unsqueeze(0), torch.tensor([3]))
    assert features.shape == (3, 32)
    assert attention.shape == (3, 4)
    assert torch.allclose(attention.sum(dim=1), torch.ones(3))
    assert torch.allclose(frames.sum(dim=1), torch.ones(1))
    assert context.shape == (1, 32)


def test_repeated_frames_are_not_looked_at(model: AttentionCnnBiLstm) -> None:
    with torch.no_grad():
        _, attention = model.head(torch.randn(2, 6, 32), torch.tensor([2, 6]))
    assert torch.count_nonzero(attention[0]) == 2
    assert (attention[0, :4] == 0).all()
    assert torch.count_nonzero(attention[1]) == 6


def test_one_frame_of_length_one_is_looked_at_alone(model: AttentionCnnBiLstm) -> None:
    with torch.no_grad():
        _, attention = model.head(torch.randn(3, 1, 32), torch.ones(3, dtype=torch.int64))
    assert torch.equal(attention, torch.ones(3, 1))


def test_macs_are_what_a_hook_counts(model: AttentionCnnBiLstm) -> None:
    counted = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, torch.nn.Conv2d):
            counted += output.numel() * module.weight[0].numel()

    handles = [module.register_forward_hook(count) for module in model.encoder.cnn.modules()]
    with torch.no_grad():
        model.encoder(faces(1))
    for handle in handles:
        handle.remove()
    recurrent = 4 * 2 * 4 * 16 * (32 + 16) + 4 * 32 * 32
    attention = 32 * 32 + 2 * 4 * 32  # as exported: the values are their own keys
    regions = 2**2 * 4 * 32  # the product that takes the means
    assert encoder_macs(model.config) == counted + regions + recurrent + attention
    assert head_macs(model.config, 4) > head_macs(model.config, 1) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": (8, 8, 8)}, "expected four"),
        ({"input_size": 50}, "multiple of 8"),
        ({"token_grid": 4}, "token_grid"),
        ({"discriminants": 7}, "expected 1 to 6"),
        ({"dense_layers": 2}, "expected three or more"),
        ({"temporal_hidden": 32}, "temporal_hidden"),
        ({"channels": (8, 8, 0, 8)}, "expected 1 or more"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        ModelConfig(**change)  # type: ignore[arg-type]
