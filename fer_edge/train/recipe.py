"""Recipes of training, pruning and QAT: frozen dataclasses, read from TOML and recorded in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_type_hints

from fer_edge.core.errors import RecipeError
from fer_edge.core.int8_forms import ActivationRange, Form
from fer_edge.core.json import decode
from fer_edge.core.labels import READINGS, Reading
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.data.clips import TRAINED, ClipPlan
from fer_edge.data.sampling import SampleRecipe
from fer_edge.model.config import ModelConfig

__all__ = [
    "AugmentSpec",
    "LossSpec",
    "OptimiserSpec",
    "Precision",
    "PruneRecipe",
    "QatRecipe",
    "SequenceTraining",
    "TrainRecipe",
    "recorded",
]

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
"""Arithmetic of a training: ``"auto"`` is bf16 where the device has it natively, else FP32."""

_MANY = 1_000_000_000


_Kind = TypeVar("_Kind")


def recorded(kind: type[_Kind], value: Any) -> _Kind:
    """Decode a recipe or shape that a run or bundle records; keys that this version no longer has are dropped.

    Raises:
        InputError: a value does not fit this version.
    """
    return decode(kind, _known(kind, value))


def _known(kind: Any, value: Any) -> Any:
    if not is_dataclass(kind) or not isinstance(value, Mapping):
        return value
    hints = get_type_hints(kind)
    return {name: _known(hints[name], each) for name, each in value.items() if name in hints}


def _check(recipe: Any, low: float, high: float, *names: str) -> None:
    """Refuse values of a recipe outside a range.

    Raises:
        RecipeError: one is.
    """
    for name in names:
        value = getattr(recipe, name)
        if not low <= value <= high:
            span = f"{low:g} to {high:g}" if high < _MANY else f"{low:g} or more"
            raise RecipeError(f"{name}: got {value:g}, expected {span}")


def _check_positive(recipe: Any, *names: str) -> None:
    for name in names:
        if not getattr(recipe, name) > 0:
            raise RecipeError(f"{name}: got {getattr(recipe, name):g}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """Strengths of the random augmentation of training faces.

    Attributes:
        rotation_degrees: largest rotation to either side.
        scale: largest relative change of size.
        shift: largest shift, as a fraction of the side.
        shear: largest shear.
        flip: probability of a mirrored face.
        gamma: largest change of log2 gamma (light).
        gain: largest relative change of contrast.
        gradient: largest light gradient across the face, grey levels.
        noise: largest standard deviation of additive noise, grey levels.
        blur: probability of a 3x3 binomial blur.
        erase: probability of an occluding rectangle.
        degrade: probability of one of the degradations of `fer_edge.train.degrade`.
        mix: probability that the faces of a batch are mixed pairwise (mixup, arXiv 1710.09412, or CutMix,
            arXiv 1905.04899).
    """

    rotation_degrees: float = 15.0
    scale: float = 0.15
    shift: float = 0.08
    shear: float = 0.1
    flip: float = 0.5
    gamma: float = 0.5
    gain: float = 0.3
    gradient: float = 40.0
    noise: float = 8.0
    blur: float = 0.1
    erase: float = 0.3
    degrade: float = 0.0
    mix: float = 0.3

    def __post_init__(self) -> None:
        _check(self, 0, 1, "flip", "blur", "erase", "degrade", "mix", "scale", "shift", "shear")
        _check(self, 0, 180, "rotation_degrees")
        _check(self, 0, 255, "gamma", "gain", "gradient", "noise")


@dataclass(frozen=True, kw_only=True)
class OptimiserSpec:
    """AdamW with warm-up and cosine decay, and the moving average of its weights.

    Attributes:
        epochs: passes over the training split.
        batch_size: rows a step.
        learning_rate: the peak, reached after the warm-up.
        warmup_epochs: linear rise from zero.
        weight_decay: decoupled (Loshchilov and Hutter 2019), on matrices and kernels only.
        ema_decay: of the exponential moving average that is evaluated and exported; 0 disables it.
        clip_norm: gradients are scaled down to this norm.
    """

    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    ema_decay: float = 0.998
    clip_norm: float = 2.0

    def __post_init__(self) -> None:
        _check(self, 1, _MANY, "epochs")
        _check(self, 2, _MANY, "batch_size")
        _check_positive(self, "learning_rate", "clip_norm")
        _check(self, 0, _MANY, "warmup_epochs")
        _check(self, 0, 0.99999, "ema_decay")
        _check(self, 0, 10, "weight_decay")


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Cross-entropy plus centre loss, and what softens the targets.

    Attributes:
        label_smoothing: mass spread evenly over the classes.
        votes_weight: share of the target taken from the FER+ votes of the row, where it has some.
        crowd_weight: share of the loss toward the FER+ votes, by a probe of its own, where the recipe's heads include
            `crowd`.
        soft_weight: share of both targets taken from teachers that were not trained on the face, where there are some.
        class_weights: ``"none"``, or ``"inverse-sqrt"`` to weigh classes by one over the root of their count.
        centre_weight: weight of the centre loss (Wen et al. 2016).
        centre_rate: how far a class centre moves toward its mini-batch mean.
        dropout: on the context in front of the linear probe.
        distil_weight: share of the loss that follows teachers, where there are some (Hinton et al. 2015).
        distil_temperature: of both softmaxes in that share.
    """

    label_smoothing: float = 0.05
    votes_weight: float = 0.3
    crowd_weight: float = 0.5
    soft_weight: float = 0.6
    class_weights: Literal["none", "inverse-sqrt"] = "none"
    centre_weight: float = 0.002
    centre_rate: float = 0.5
    dropout: float = 0.2
    distil_weight: float = 0.7
    distil_temperature: float = 2.0

    def __post_init__(self) -> None:
        _check(self, 0, 1, "label_smoothing", "votes_weight", "crowd_weight", "soft_weight", "centre_rate")
        _check(self, 0, 1, "distil_weight")
        _check(self, 0, 0.9, "dropout")
        _check(self, 0, 10, "centre_weight")
        _check(self, 0.1, 100, "distil_temperature")


@dataclass(frozen=True, kw_only=True)
class SequenceTraining:
    """The second stage: the head on windows of features, LDA, and the classifier behind it.

    Attributes:
        window: largest number of frames of a window.
        frame_rate: features a second that the head is meant for.
        clip_frames: frames of a training clip, from which windows are cut.
        corruptions: of the clips; leave out those to be reported as untrained.
        together: largest number of corruptions in one clip.
        clean: share of the clips without any.
        changing: share of the clips whose expression changes, at any frame.
        mirrored: share of the clips made of mirrored stills.
        change_weight: of a window in which the expression changes, against 1 for the others; higher values report a
            change sooner and weigh older frames less.
        distil_weight: share of a window's target that is the mean of single-frame probabilities, of the first stage or
            of the initial head, over the frames that show the newest one's expression.
        alone_distil_weight: the same for windows that show one frame only.
        copies: augmented copies of every training still, for heads trained on stills (`fer_edge.paper`).
        context_epochs: of the temporal BiLSTM and attention, in front of the linear probe.
        context_rate: their peak learning rate; low, since these weights are trained.
        classifier_epochs: of DenseNet block and classifier behind the LDA.
        classifier_rate: their peak learning rate; high, since these weights are new.
        batch_size: windows a step.
        negatives: made pictures that the head `crowd` rejects, as a share of the training faces.
    """

    window: int = 16
    frame_rate: float = 10.0
    clip_frames: int = 16
    corruptions: tuple[str, ...] = TRAINED
    together: int = 2
    clean: float = 0.25
    changing: float = 0.35
    mirrored: float = 0.5
    change_weight: float = 0.2
    distil_weight: float = 0.2
    alone_distil_weight: float = 0.5
    copies: int = 6
    context_epochs: int = 6
    context_rate: float = 1e-3
    classifier_epochs: int = 10
    classifier_rate: float = 1e-2
    batch_size: int = 512
    negatives: float = 0.2

    def __post_init__(self) -> None:
        _check(self, 1, _MANY, "window", "copies", "context_epochs", "classifier_epochs")
        _check(self, 2, _MANY, "batch_size")
        _check(self, self.window, _MANY, "clip_frames")
        _check_positive(self, "frame_rate", "context_rate", "classifier_rate")
        _check(self, 0, 10, "change_weight")
        _check(self, 0, 1, "distil_weight", "alone_distil_weight", "negatives")
        self.clip_plan(seed=0)  # validates the rest

    def clip_plan(self, *, seed: int) -> ClipPlan:
        """Return the plan of the training clips: corruptions of every level, changes at every frame."""
        return ClipPlan(
            frames=self.clip_frames,
            corruptions=self.corruptions,
            together=self.together,
            clean=self.clean,
            changing=self.changing,
            change=(1, self.clip_frames - 1),
            mirrored=self.mirrored,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Everything that a training run depends on besides the data.

    Attributes:
        heads: the heads that the sequence stage trains. Alone (``--stage sequence``) it keeps the others of the initial
            network; after the frame stage `fer2013` must be among them.
    """

    seed: int = 0
    heads: tuple[Reading, ...] = ("fer2013",)
    precision: Precision = "auto"
    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    optimiser: OptimiserSpec = field(default_factory=OptimiserSpec)
    loss: LossSpec = field(default_factory=LossSpec)
    sequence: SequenceTraining = field(default_factory=SequenceTraining)

    def __post_init__(self) -> None:
        _check(self, 0, _MANY, "seed")
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise RecipeError(f"heads: got {self.heads}, expected one or more of {', '.join(READINGS)}, none twice")
        if self.preprocess.size != self.model.input_size:
            raise RecipeError(
                f"preprocess.size: got {self.preprocess.size}, expected model.input_size, {self.model.input_size}"
            )


@dataclass(frozen=True, kw_only=True)
class PruneRecipe:
    """How a trained network is pruned.

    Attributes:
        round_to: channel counts stay multiples of this: 8, 16 or 32 suit vector units.
        recurrent: share of the target that the BiLSTMs' hidden width follows; 0 keeps it.
        optimiser: of the fine-tuning.
        augment: of the fine-tuning; None for the parent's.
        loss: of the fine-tuning; None for the parent's.
    """

    round_to: int = 8
    recurrent: float = 0.5
    optimiser: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(epochs=12, learning_rate=1e-3, warmup_epochs=0.5)
    )
    augment: AugmentSpec | None = None
    loss: LossSpec | None = None

    def __post_init__(self) -> None:
        _check(self, 1, _MANY, "round_to")
        _check(self, 0, 1, "recurrent")

    def fine_tuning(self, parent: TrainRecipe, model: ModelConfig) -> TrainRecipe:
        """Return the recipe of the fine-tuning of a pruned network."""
        augment, loss = self.augment or parent.augment, self.loss or parent.loss
        return replace(parent, model=model, optimiser=self.optimiser, augment=augment, loss=loss)


@dataclass(frozen=True, kw_only=True)
class QatRecipe:
    """How a trained network is fine-tuned for INT8.

    Attributes:
        form: the INT8 form whose rounding is trained under; export makes both from the learnt ranges.
        sample: the rows that the first ranges are calibrated on.
        activation_range: how NNCF estimates an activation's first range.
        batch: faces a batch of the calibration.
        precision: of the training. FP32, since bf16 has no finer steps than INT8.
        rows: training rows used, stratified; 0 uses all.
        head: ``"refit"`` trains the sequence head on the rounded features and fits the LDA again; ``"keep"`` trains the
            encoder alone, in front of the head as it is.
        distil_weight: share of the loss that follows the float network.
        optimiser: of the fine-tuning.
    """

    form: Form = "int8"
    sample: SampleRecipe = field(default_factory=SampleRecipe)
    activation_range: ActivationRange = "histogram"
    batch: int = 64
    precision: Precision = "fp32"
    rows: int = 0
    head: Literal["refit", "keep"] = "refit"
    distil_weight: float = 0.9
    optimiser: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(
            epochs=5, learning_rate=1e-4, warmup_epochs=0.25, weight_decay=0.01, ema_decay=0.99
        )
    )

    def __post_init__(self) -> None:
        _check(self, 1, _MANY, "batch")
        _check(self, 0, _MANY, "rows")
        _check(self, 0, 1, "distil_weight")
