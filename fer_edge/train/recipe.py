"""What a training run is told: one frozen record, read from a TOML recipe and written into the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import ActivationRange, Form
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
"""Names of the measures that filters are ranked by."""


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} must lie in [{low:g}, {high:g}]; got {value:g}")


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """Strengths of the random changes made to training faces.

    Attributes:
        rotation_degrees: largest rotation to either side.
        scale: largest relative change of size.
        shift: largest shift, as a fraction of the side.
        shear: largest shear.
        flip: chance of a mirrored face.
        gamma: largest change of log2 gamma (light).
        gain: largest relative change of contrast.
        gradient: largest light gradient across the face, grey levels.
        noise: largest standard deviation of additive noise, grey levels.
        blur: chance of a 3x3 binomial blur.
        erase: chance of an occluding rectangle.
        mix: chance that a batch's faces are mixed pairwise (mixup, arXiv 1710.09412, or CutMix, arXiv 1905.04899).
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
    mix: float = 0.3

    def __post_init__(self) -> None:
        for name in ("flip", "blur", "erase", "mix", "scale", "shift", "shear"):
            _check(f"{name}", getattr(self, name), 0.0, 1.0)
        _check("rotation_degrees", self.rotation_degrees, 0.0, 180.0)
        for name in ("gamma", "gain", "gradient", "noise"):
            _check(f"{name}", getattr(self, name), 0.0, 255.0)


@dataclass(frozen=True, kw_only=True)
class OptimiserSpec:
    """AdamW with warm-up and cosine decay, and the moving average of its weights.

    Attributes:
        epochs: passes over the training split.
        batch_size: faces a step, over all processes together.
        learning_rate: the peak, reached after the warm-up.
        warmup_epochs: linear rise from zero.
        weight_decay: decoupled (Loshchilov and Hutter 2019), on matrices and kernels only.
        ema_decay: of the exponential moving average that is evaluated and shipped.
        clip_norm: gradients are scaled down to this norm.
        skip_easy: chance that a row whose last loss lay below the mean is left out of an epoch; it weighs the more
            when it is not (InfoBatch, arXiv 2303.04947). A third of the time is saved at 0.5.
        sam_radius: a step goes by the gradient at the worst place so near by (`fer_edge.train.sam`), which takes
            twice the time; 0 goes by the one where it stands. Published settings lie between 0.5 and 2.
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
        if self.epochs < 1 or self.batch_size < 2:
            raise InputError(f"epochs >= 1 and batch_size >= 2 expected; got {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0 or not self.clip_norm > 0:
            raise InputError("learning_rate and clip_norm must be positive")
        _check("ema_decay", self.ema_decay, 0.0, 0.99999)
        _check("weight_decay", self.weight_decay, 0.0, 10.0)
        _check("skip_easy", self.skip_easy, 0.0, 0.9)
        _check("sam_radius", self.sam_radius, 0.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Cross-entropy plus centre loss, and what softens the targets.

    Attributes:
        label_smoothing: mass spread evenly over the classes.
        votes_weight: share of the target taken from the FER+ crowd votes of the same row, where a row has them.
        class_weights: ``"none"``, or ``"inverse-sqrt"`` to weigh classes by one over the root of their count.
        centre_weight: weight of the centre loss (Wen et al. 2016).
        centre_rate: how far a class centre moves toward its mini-batch mean.
        dropout: on the context in front of the temporary classifier.
        distil_weight: share of the loss that follows a teacher, where there is one (Hinton et al. 2015).
        distil_temperature: of both softmaxes in that share.
        distil_form: ``"kd"``, or ``"dkd"`` for its decoupled form (Zhao et al. 2022).
        distil_beta: in the decoupled form, weight of the divergence among the classes that are not the row's own.
        distil_views: random versions of every training face that the teachers are asked about, once and for all; an
            epoch works on one of them, in turn. 0 asks them at every step about what the step sees, mixed faces too.
        distil_consensus: share of what is followed that is taken from the mean over all views of the face instead of
            the view at hand: what a teacher says of many views together is truer than what it says of one. Asks the
            teachers about all views before the first epoch. At 1, with nothing else followed, every epoch works on new
            views.
        distil_features: weight of one minus the cosine to the teachers' features, behind a linear adapter (Romero et
            al. 2015, arXiv 1412.6550).
        distil_regions: weight of the divergence from the teachers' attention over the region tokens.
        distil_maps: weight of one minus the cosine to the energy of the teachers' feature maps (Zagoruyko and Komodakis
            2017, arXiv 1612.03928).
    """

    label_smoothing: float = 0.05
    votes_weight: float = 0.3
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
        for name in ("label_smoothing", "votes_weight", "centre_rate", "distil_weight", "distil_consensus"):
            _check(f"{name}", getattr(self, name), 0.0, 1.0)
        _check("dropout", self.dropout, 0.0, 0.9)
        _check("centre_weight", self.centre_weight, 0.0, 10.0)
        _check("distil_temperature", self.distil_temperature, 0.1, 100.0)
        for name in ("distil_beta", "distil_features", "distil_regions", "distil_maps"):
            _check(f"{name}", getattr(self, name), 0.0, 100.0)
        _check("distil_views", self.distil_views, 0, 9999)
        if self.distil_consensus and self.distil_views < 2:
            raise InputError(
                f"distil_consensus is the mean over a face's views and needs distil_views >= 2; got {self.distil_views}"
            )


@dataclass(frozen=True, kw_only=True)
class SequenceTraining:
    """The second stage: the head on windows of features, LDA, and the fine-tuning behind it.

    Attributes:
        window: frames a window holds at most.
        frame_rate: features a second that the head is meant for.
        clip_frames: frames of a training clip; a window is drawn from anywhere in it.
        corruptions: what clips are spoilt by; what is to be judged as never trained on stays out.
        together: at most so many corruptions in one clip.
        clean: share of the clips without any.
        changing: share of the clips whose expression changes, at any frame.
        mirrored: share of the clips made of mirrored stills.
        change_weight: of a window in which the expression changes, beside 1 for one in which it does not: the larger,
            the sooner a change is reported, and the less the older frames count.
        distil_weight: share of a window's target taken from what the first stage (or the head to begin with) says of
            its single frames, averaged over those that show the newest one's expression.
        alone_distil_weight: the same where there is but one frame to see.
        copies: independently augmented copies of every training still, where a head is trained on stills instead of
            clips (`fer_edge.paper`).
        context_epochs: training of the temporal BiLSTM and attention with the temporary classifier.
        context_rate: its peak learning rate; low, for these weights come trained.
        classifier_epochs: training of DenseNet block and classifier behind the fitted LDA.
        classifier_rate: its peak learning rate; high, for these weights are new.
        batch_size: windows a step.
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

    def __post_init__(self) -> None:
        if min(self.window, self.copies, self.context_epochs, self.classifier_epochs) < 1 or self.batch_size < 2:
            raise InputError("window, copies, context_epochs, classifier_epochs must be >= 1 and batch_size >= 2")
        if not min(self.frame_rate, self.context_rate, self.classifier_rate) > 0:
            raise InputError("frame_rate, context_rate and classifier_rate must be positive")
        if self.clip_frames < self.window:
            raise InputError(f"clip_frames must be at least window; got {self.clip_frames} and {self.window}")
        _check("change_weight", self.change_weight, 0.0, 10.0)
        _check("distil_weight", self.distil_weight, 0.0, 1.0)
        _check("alone_distil_weight", self.alone_distil_weight, 0.0, 1.0)
        self.clip_plan(seed=0)  # says what is wrong with the rest

    def clip_plan(self, *, seed: int) -> ClipPlan:
        """The training clips: corruptions of every level, changes at every frame."""
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
    """Everything a training run depends on besides the data."""

    seed: int = 0
    precision: Precision = "auto"
    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    optimiser: OptimiserSpec = field(default_factory=OptimiserSpec)
    loss: LossSpec = field(default_factory=LossSpec)
    sequence: SequenceTraining = field(default_factory=SequenceTraining)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more; got {self.seed}")
        if self.preprocess.size != self.model.input_size:
            raise InputError(
                f"preprocess.size must equal model.input_size; got {self.preprocess.size} and {self.model.input_size}"
            )


@dataclass(frozen=True, kw_only=True)
class SparsitySpec:
    """Weights that are zero in a pattern that a GPU can skip.

    Attributes:
        pattern: ``"2:4"``: of every four weights along the input channels at most two are not zero (Mishra et al. 2021,
            arXiv 2104.08378). ``"none"`` leaves the weights dense.
        min_channels: convolutions with fewer input or output channels stay dense.
    """

    pattern: Literal["none", "2:4"] = "none"
    min_channels: int = 32

    def __post_init__(self) -> None:
        if self.min_channels < 4 or self.min_channels % 4:
            raise InputError(f"sparsity.min_channels must be a positive multiple of 4; got {self.min_channels}")


@dataclass(frozen=True, kw_only=True)
class PruneRecipe:
    """How a trained network is made smaller.

    Attributes:
        importance: how filters and hidden units are ranked (`fer_edge.train.importance`): by the L2 norm of their
            weights, by batch-norm scale, by first- or second-order estimates of what the loss would gain, or at random.
        importance_rows: training faces that the estimates are taken on.
        seed: of the choice of those faces, and of the random ranking.
        steps: prunings, each a part of the way and followed by fine-tuning; only the last one trains the head.
        round_to: channel counts stay multiples of this, as vector units like them: 8, 16 or 32.
        recurrent: share of the target that the BiLSTMs' hidden width follows; 0 keeps it.
        idle_blocks: residual blocks go before any filter does where what they add strays less than this share of what
            their shortcut does (`fer_edge.train.block_pruning`); 0 keeps them all.
        sparsity: zeros that the last step leaves in what it keeps.
        optimiser: fine-tuning after each step.
        fine_tune: without it the network stays as pruning left it, head and all; for idle blocks alone.
        step_epochs: of the fine-tuning after every step but the last; 0 for the optimiser's.
        augment: of the fine-tuning; the parent's without it.
        loss: of the fine-tuning; the parent's without it.
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
        for name in ("round_to", "importance_rows", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1; got {getattr(self, name)}")
        for name in ("step_epochs", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0; got {getattr(self, name)}")
        _check("recurrent", self.recurrent, 0.0, 1.0)
        _check("idle_blocks", self.idle_blocks, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class QatRecipe:
    """How a trained network learns to be INT8.

    Attributes:
        form: the INT8 form whose rounding is trained under; export makes both from the ranges learnt.
        sample: the rows that the first ranges are calibrated on.
        activation_range: how NNCF finds an activation's first range.
        batch: faces a batch of the calibration.
        precision: of the training. FP32, since a bf16 number has no finer steps than an INT8 one.
        rows: training rows used, each class by its share; 0 uses all.
        head: ``"refit"`` trains the sequence head on the rounded features and fits the LDA anew, as after every step
            that changes the features; ``"keep"`` leaves the head alone and trains the encoder alone, in front of it.
        distil_weight: share of the loss that follows the network it began as.
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
        if self.batch < 1 or self.rows < 0:
            raise InputError(f"batch must be >= 1 and rows >= 0; got {self.batch} and {self.rows}")
        _check("distil_weight", self.distil_weight, 0.0, 1.0)
