"""Recipes of training, pruning and QAT: frozen dataclasses, read from TOML and recorded in the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fer_edge.core.errors import RecipeError
from fer_edge.core.int8_forms import ActivationRange, Form
from fer_edge.core.labels import READINGS, Reading
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.data.clips import TRAINED, ClipPlan
from fer_edge.data.sampling import SampleRecipe
from fer_edge.model.config import ModelConfig

__all__ = [
    "AugmentSpec",
    "Importance",
    "LossSpec",
    "OptimiserSpec",
    "Precision",
    "PruneRecipe",
    "QatRecipe",
    "SequenceTraining",
    "SparsitySpec",
    "TrainRecipe",
]

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
"""Arithmetic of a training: ``"auto"`` is bf16 where the device has it natively, else FP32."""

Importance: TypeAlias = Literal["group-norm", "bn-scale", "taylor", "hessian", "random"]
"""Importance measures of `fer_edge.train.importance`."""

_MANY = 1_000_000_000


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
        batch_size: rows a step, over all processes together.
        learning_rate: the peak, reached after the warm-up.
        warmup_epochs: linear rise from zero.
        weight_decay: decoupled (Loshchilov and Hutter 2019), on matrices and kernels only.
        ema_decay: of the exponential moving average that is evaluated and exported; 0 disables it.
        clip_norm: gradients are scaled down to this norm.
        skip_easy: probability that a row with a loss below the mean is skipped in an epoch (InfoBatch, arXiv
            2303.04947). 0.5 saves a third of the time.
        sam_radius: radius of SAM (`fer_edge.train.sam`), which doubles the time of a step; 0 disables it. Published
            values are 0.5 to 2.
    """

    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    ema_decay: float = 0.998
    clip_norm: float = 2.0
    skip_easy: float = 0.0
    sam_radius: float = 0.0

    def __post_init__(self) -> None:
        _check(self, 1, _MANY, "epochs")
        _check(self, 2, _MANY, "batch_size")
        _check_positive(self, "learning_rate", "clip_norm")
        _check(self, 0, _MANY, "warmup_epochs")
        _check(self, 0, 0.99999, "ema_decay")
        _check(self, 0, 10, "weight_decay")
        _check(self, 0, 0.9, "skip_easy")
        _check(self, 0, 100, "sam_radius")


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
        distil_form: ``"kd"``, or ``"dkd"`` for decoupled distillation (Zhao et al. 2022).
        distil_beta: in ``"dkd"``, weight of the divergence among the classes other than the row's own.
        distil_views: random views of every training face with cached teacher outputs; epochs use them in turn. 0 runs
            the teachers at every step, on the augmented faces of the step.
        distil_consensus: share of the probabilities to follow that is their mean over all views of a face, which is
            more accurate than a single view's. Runs the teachers on all views before the first epoch. At 1, with
            nothing else followed, every epoch uses new views.
        distil_features: weight of one minus the cosine to the teachers' features, behind a linear adapter (Romero et
            al. 2015, arXiv 1412.6550).
        distil_regions: weight of the divergence from the teachers' attention over the region tokens.
        distil_maps: weight of one minus the cosine to the energy of the teachers' feature maps (Zagoruyko and Komodakis
            2017, arXiv 1612.03928).
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
    distil_form: Literal["kd", "dkd"] = "kd"
    distil_beta: float = 2.0
    distil_views: int = 0
    distil_consensus: float = 0.0
    distil_features: float = 0.0
    distil_regions: float = 0.0
    distil_maps: float = 0.0

    def __post_init__(self) -> None:
        _check(self, 0, 1, "label_smoothing", "votes_weight", "crowd_weight", "soft_weight", "centre_rate")
        _check(self, 0, 1, "distil_weight", "distil_consensus")
        _check(self, 0, 0.9, "dropout")
        _check(self, 0, 10, "centre_weight")
        _check(self, 0.1, 100, "distil_temperature")
        _check(self, 0, 100, "distil_beta", "distil_features", "distil_regions", "distil_maps")
        _check(self, 0, 9999, "distil_views")
        if self.distil_consensus and self.distil_views < 2:
            raise RecipeError(f"distil_views: got {self.distil_views}, expected 2 or more with distil_consensus")


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
class SparsitySpec:
    """Sparsity pattern of the weights, for GPUs that skip zeros.

    Attributes:
        pattern: ``"2:4"``: of every four weights along the input channels at most two are not zero (Mishra et al. 2021,
            arXiv 2104.08378). ``"none"`` keeps the weights dense.
        min_channels: convolutions with fewer input or output channels stay dense.
    """

    pattern: Literal["none", "2:4"] = "none"
    min_channels: int = 32

    def __post_init__(self) -> None:
        if self.min_channels < 4 or self.min_channels % 4:
            raise RecipeError(f"sparsity.min_channels: got {self.min_channels}, expected a positive multiple of 4")


@dataclass(frozen=True, kw_only=True)
class PruneRecipe:
    """How a trained network is pruned.

    Attributes:
        importance: measure that ranks filters and hidden units (`fer_edge.train.importance`).
        importance_rows: training faces that gradients are taken on.
        seed: of the choice of those faces, and of the random ranking.
        steps: number of prunings, each followed by fine-tuning; only the last one trains the head.
        round_to: channel counts stay multiples of this: 8, 16 or 32 suit vector units.
        recurrent: share of the target that the BiLSTMs' hidden width follows; 0 keeps it.
        idle_blocks: residual blocks whose branch varies less than this share of their shortcut are removed before any
            filter (`fer_edge.train.block_pruning`); 0 keeps them all.
        sparsity: of the weights after the last step.
        optimiser: fine-tuning after each step.
        fine_tune: false keeps the weights as pruning left them, head included; for idle blocks alone.
        step_epochs: epochs after every step but the last; 0 for the optimiser's.
        augment: of the fine-tuning; None for the parent's.
        loss: of the fine-tuning; None for the parent's.
    """

    importance: Importance = "bn-scale"
    importance_rows: int = 1024
    seed: int = 0
    steps: int = 1
    round_to: int = 8
    recurrent: float = 0.5
    idle_blocks: float = 0.0
    fine_tune: bool = True
    sparsity: SparsitySpec = field(default_factory=SparsitySpec)
    optimiser: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(epochs=12, learning_rate=1e-3, warmup_epochs=0.5)
    )
    step_epochs: int = 0
    augment: AugmentSpec | None = None
    loss: LossSpec | None = None

    def __post_init__(self) -> None:
        _check(self, 1, _MANY, "round_to", "importance_rows", "steps")
        _check(self, 0, _MANY, "step_epochs", "seed")
        _check(self, 0, 1, "recurrent", "idle_blocks")


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
