"""What students learn from: several teachers as one, the bank of views, features and attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from training import ON_CPU, RESUMED, small_dataset, small_recipe

from fer_edge.core.errors import InputError, RecipeError
from fer_edge.data import Dataset
from fer_edge.train.batches import DeviceFaces, DeviceSplits, seeded
from fer_edge.train.distillation import PARTS, Teachers, combine_teachers
from fer_edge.train.distributed import Processes
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.frame_stage import FrameTask
from fer_edge.train.loop import no_progress
from fer_edge.train.losses import decoupled_losses, distillation_losses, feature_losses, region_losses
from fer_edge.train.recipe import LossSpec, TrainRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun
from fer_edge.train.teacher_cache import TeacherCache, make_view
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train
ALONE = Processes(rank=0, world=1, device=torch.device("cpu"))
EVERYTHING = {"distil_features": 0.5, "distil_regions": 0.3, "distil_maps": 0.2}


class Listener:
    """Counts the faces that teachers are asked about; presses Ctrl-C at a step of the frames' stage."""

    def __init__(self, stop: int = 0) -> None:
        self.asked = 0
        self.stop = stop

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == "teachers" and done == total:
            self.asked += total
        if stage == "frames" and done == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(epochs=1), dataset, tmp_path_factory.mktemp("runs") / "teacher", options=ON_CPU)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def classifier(*, seed: int = 0, recipe: TrainRecipe | None = None) -> FrameClassifier:
    recipe = recipe or small_recipe()
    torch.manual_seed(seed)
    model, probe = TrainRun(path=Path(), recipe=recipe, record={}).new_model()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # otherwise residual blocks are their shortcuts
            torch.nn.init.uniform_(module.weight, 0.2, 1.0)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return FrameClassifier(model, probe).eval()


def taught(views: int = 2, *, epochs: int = 3, **loss: float) -> TrainRecipe:
    recipe = small_recipe(epochs=epochs)
    optimiser = replace(recipe.optimiser, skip_easy=0.5)
    return replace(recipe, optimiser=optimiser, loss=LossSpec(distil_views=views, **loss))  # type: ignore[arg-type]


def bank(recipe: TrainRecipe, dataset: Dataset, *teachers: FrameClassifier) -> TeacherCache:
    split = dataset.split("train")
    train = DeviceFaces.load(split, replace(recipe.preprocess, median=0), recipe.loss, ALONE.device, classes=7)
    return TeacherCache(teachers=Teachers(teachers or [classifier()]), train=train, recipe=recipe, peers=ALONE)


def logits(rows: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, 7, generator=torch.Generator().manual_seed(seed)) * 3


def test_decoupled_distillation_is_the_plain_one_where_beta_is_what_the_teacher_leaves() -> None:
    student, teacher, labels, temperature = logits(1), logits(1, seed=1), torch.tensor([2]), 2.0
    left = 1 - float(torch.softmax(teacher / temperature, dim=1)[0, 2])
    decoupled = decoupled_losses(student, teacher, labels, temperature, left)
    assert torch.allclose(decoupled, distillation_losses(student, teacher, temperature), atol=1e-5)


def test_following_the_mean_of_teachers_is_following_each() -> None:
    student, others = logits().requires_grad_(), (logits(seed=1), logits(seed=2))
    lesson = combine_teachers([{"logits": each} for each in others], 2.0)
    (together,) = torch.autograd.grad(distillation_losses(student, lesson.logits, 2.0).mean(), student)
    each = torch.stack([distillation_losses(student, other, 2.0).mean() for other in others]).mean()
    (apart,) = torch.autograd.grad(each, student)
    assert torch.allclose(together, apart, atol=1e-6)


def test_losses_of_features_and_regions_are_nought_at_the_teacher_alone() -> None:
    given, other = logits().softmax(dim=1), logits(seed=1).softmax(dim=1)
    for loss in (feature_losses, region_losses):
        assert torch.allclose(loss(given, given), torch.zeros(5), atol=1e-6)
        assert bool((loss(other, given) > 1e-4).all())
    assert torch.allclose(feature_losses(3 * given, given), torch.zeros(5), atol=1e-6)


def test_a_folded_teacher_says_what_the_teacher_says() -> None:
    teacher, faces = classifier(), torch.randint(0, 256, (4, 16, 16), dtype=torch.uint8)
    told = Teachers([teacher]).outputs(0, faces, PARTS)
    with torch.no_grad():
        expected = teacher(faces)
    assert torch.allclose(told["logits"], expected.logits, atol=1e-4)
    assert torch.allclose(told["features"], expected.features, atol=1e-4)
    assert torch.allclose(told["regions"].sum(dim=1), torch.ones(4))
    assert torch.allclose(told["maps"].square().sum(dim=1), torch.ones(4))


def test_a_view_is_its_seed_and_comes_back_after_all_others(dataset: Dataset) -> None:
    views = bank(taught(2), dataset)
    first, second, third = (views.view(epoch, no_progress) for epoch in range(3))
    assert torch.equal(first.images, third.images)
    assert (first.images != second.images).float().mean() > 0.5
    part = make_view(views.train.images[:256], views.recipe.augment, 1)
    assert torch.equal(part, second.images[:256])


def test_a_consensus_is_the_mean_of_what_is_said_of_every_view(dataset: Dataset) -> None:
    rows, temperature, listener = torch.arange(4), 2.0, Listener()
    alone = bank(taught(3), dataset)
    said = [alone.view(epoch, no_progress).targets(rows, temperature).logits for epoch in range(3)]
    mean = torch.stack([torch.softmax(each / temperature, dim=1) for each in said]).mean(dim=0)
    for share in (0.25, 1.0):
        agreed = bank(taught(3, distil_consensus=share), dataset).view(1, listener).targets(rows, temperature)
        own = torch.softmax(said[1] / temperature, dim=1)
        expected = (1 - share) * own + share * mean
        assert torch.allclose(torch.softmax(agreed.logits / temperature, dim=1), expected, atol=1e-5)
    assert listener.asked == 0  # all three views were asked of before


def test_a_whole_consensus_is_followed_on_new_views(dataset: Dataset) -> None:
    listener = Listener()
    views = bank(taught(3, distil_consensus=1.0), dataset)
    first, second = views.view(0, listener), views.view(1, listener)
    assert listener.asked == 3 * len(first.images)
    asked = [bank(taught(3), dataset).view(epoch, no_progress).images for epoch in range(3)]
    assert not any(torch.equal(images, each) for images in (first.images, second.images) for each in asked)
    assert not torch.equal(first.images, second.images)
    assert torch.equal(first.images, bank(taught(3, distil_consensus=1.0), dataset).view(0, listener).images)
    rows = torch.arange(4)
    assert torch.equal(first.targets(rows, 2.0).logits, second.targets(rows, 2.0).logits)
    followed = bank(taught(3, distil_consensus=1.0, distil_regions=0.5), dataset).view(1, listener)
    assert torch.equal(followed.images, asked[1])  # regions are a view's own


def test_a_consensus_of_one_view_is_refused() -> None:
    with pytest.raises(RecipeError, match="distil_views: got 1, expected 2 or more"):
        taught(1, distil_consensus=0.5)


def test_teachers_are_asked_once_and_no_face_is_kept(dataset: Dataset, cache: Path) -> None:
    recipe, listener = taught(2), Listener()
    first = bank(recipe, dataset).view(0, listener)
    faces = len(first.images)
    assert listener.asked == faces
    again = bank(replace(recipe, seed=9), dataset).view(2, listener)
    assert listener.asked == faces
    assert torch.equal(first.outputs[0]["logits"], again.outputs[0]["logits"])
    bank(taught(2, **EVERYTHING), dataset).view(0, listener)  # asked for more than logits
    assert listener.asked == 2 * faces
    bank(recipe, dataset, classifier(seed=1)).view(0, listener)
    bank(replace(recipe, augment=replace(recipe.augment, erase=0.9)), dataset).view(0, listener)
    assert listener.asked == 4 * faces
    for path in cache.rglob("*.safetensors"):
        kept = load_file(path)
        assert set(kept) <= set(PARTS)
        assert all(value.dtype == torch.float16 and value.shape[1] <= 32 for value in kept.values())


@pytest.mark.parametrize("harm", ["torn", "another view"])
def test_answers_that_cannot_be_trusted_are_asked_for_again(harm: str, dataset: Dataset, cache: Path) -> None:
    listener, recipe = Listener(), taught(1)
    expected = bank(recipe, dataset).view(0, listener).outputs[0]["logits"]
    (path,) = cache.rglob("*.safetensors")
    if harm == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        facts = {"fer_edge": '{"view_sha256": "of another version"}'}
        save_file({"logits": torch.zeros_like(expected)}, path, metadata=facts)
    found = bank(recipe, dataset).view(0, listener).outputs[0]["logits"]
    assert torch.equal(found, expected)
    assert listener.asked == 2 * len(expected)


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_a_cached_batch_holds_the_outputs_of_its_teachers(mix: float, dataset: Dataset) -> None:
    recipe, teachers = taught(1, **EVERYTHING), (classifier(), classifier(seed=1))
    recipe = replace(recipe, augment=replace(recipe.augment, mix=mix))
    views = bank(recipe, dataset, *teachers)
    rows, view = torch.tensor([3, 200, 17, 64]), views.view(0, no_progress)
    splits = DeviceSplits.load(dataset, recipe, ALONE.device)
    module = classifier(seed=5, recipe=recipe)
    task = FrameTask(module=module, splits=splits, recipe=recipe, teachers=Teachers(teachers))
    batch = task._batch(view, rows, torch.ones(len(splits.train)), seeded(ALONE.device, 1))
    assert batch.teacher is not None
    clear = view.targets(rows, 2.0)
    if mix:
        assert batch.mixed
        assert batch.teacher.features is None
        assert torch.allclose(torch.softmax(batch.teacher.logits / 2, dim=1).sum(dim=1), torch.ones(4), atol=1e-5)
        assert not torch.allclose(batch.teacher.logits, clear.logits)
    else:
        now = Teachers(teachers).targets(batch.faces, recipe.loss)
        for name in ("logits", "features", "regions", "maps"):
            assert torch.allclose(getattr(batch.teacher, name), getattr(now, name), atol=0.02), name
    loss, (_, each) = task.loss(task.module, batch)
    loss.backward()
    assert each.shape == (4,)
    assert torch.isfinite(loss)


def test_a_taught_run_resumes_to_the_same_end(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    recipe = taught(2, **EVERYTHING)
    whole = train_model(recipe, dataset, tmp_path / "whole", inputs=TrainInputs(teachers=(run,)), options=ON_CPU)
    steps = Listener(stop=14)
    with pytest.raises(KeyboardInterrupt):
        train_model(
            recipe,
            dataset,
            tmp_path / "run",
            inputs=TrainInputs(teachers=(run,)),
            options=RunOptions(device="cpu", progress=steps),
        )
    resumed = train_model(recipe, dataset, tmp_path / "run", inputs=TrainInputs(teachers=(run,)), options=RESUMED)
    assert len(resumed.record["history"]) == 3
    expected, got = (load_file(each.path / "model.safetensors") for each in (whole, resumed))
    assert set(expected) == set(load_file(run.path / "model.safetensors"))  # the adapter is gone
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_several_teachers_are_recorded_and_strangers_refused(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    recipe = replace(taught(1, epochs=1), model=replace(run.recipe.model, channels=(8, 8, 16, 24)))
    student = train_model(recipe, dataset, tmp_path / "run", inputs=TrainInputs(teachers=(run, run)), options=ON_CPU)
    assert student.record["teacher"] == [run.identity, run.identity]
    other = replace(recipe, preprocess=replace(recipe.preprocess, median=0))
    with pytest.raises(InputError, match="got preprocessing"):
        train_model(other, dataset, tmp_path / "other", inputs=TrainInputs(teachers=(run,)), options=ON_CPU)
    grid = replace(recipe, model=replace(recipe.model, token_grid=1), loss=LossSpec(distil_regions=0.1))
    with pytest.raises(InputError, match=r"4 region tokens, expected the student's 1; set model\.token_grid to 2"):
        train_model(grid, dataset, tmp_path / "grid", inputs=TrainInputs(teachers=(run,)), options=ON_CPU)
