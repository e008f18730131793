"""What every bundle says of its weights' licence and use, and the model card drawn from a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fer_edge.core.int8_forms import QAT_SUFFIX
from fer_edge.core.manifest import Manifest, Variant

__all__ = ["CARD_FILE", "INTENDED_USE", "WEIGHTS_LICENCE", "model_card"]

CARD_FILE: Final = "MODEL_CARD.md"
WEIGHTS_LICENCE: Final = (
    "Research use only, apart from the code's Apache-2.0: trained on FER2013, whose terms are research use. "
    "See LICENSE-WEIGHTS.md."
)
INTENDED_USE: Final = (
    "An auxiliary signal on the device, with nothing kept: the visible facial expression of a driver, one of seven, "
    "from a face crop or a sequence of them. It does not tell what a person feels, and must not decide alone about "
    "anything that matters to a person."
)
_LIMITS: Final = """\
- FER2013's labels are noisy: people agree with them on about 65 of 100 images, and no honest model comes near 100 %.
- `disgust` and `fear` are rare and often missed; look at the table by class before relying on either.
- The faces were found by web search and cropped around the face. Infrared cameras, steep angles, sun glare, masks and
  sunglasses are not in the data; neither is any person's age, skin or sex recorded, so no fairness figure can be given.
- A face's visible expression is not a state of mind, and says nothing on drowsiness or distraction.
- The sequence head was trained on what is made of stills (moved, lit, blurred, hidden by program), not on filmed
  expressions: none of its windows held an expression in the making."""
_LAW: Final = """\
Secondary sources; not legal advice. The EU AI Act, Art. 5(1)(f), bans emotion inference at the workplace except for
medical or safety reasons, which likely catches professional drivers; other emotion recognition is high-risk. Regulation
(EU) 2019/2144, Art. 6, wants drowsiness and distraction systems closed-loop: nothing recorded continuously, no
third-party access, immediate deletion. Euro NCAP 2026 scores distraction, drowsiness and impairment, not the seven
expressions. So this is an auxiliary signal, on the device, with nothing kept."""


def model_card(manifest: Manifest) -> str:
    """The bundle's model card, in Markdown: every figure is the manifest's."""
    training = manifest.provenance.training
    model = manifest.model
    parts = [
        f"# Model card: {manifest.name}",
        f"{manifest.intended_use}\n\n**Licence of the weights.** {manifest.licence}",
        "## Model",
        f"{model.get('architecture', 'a network')}, {model.get('parameters', 0):,} parameters, "
        f"{model.get('macs_encoder', 0) / 1e6:.1f} M multiply-accumulates a frame in the encoder and "
        f"{model.get('macs_head', 0) / 1e6:.1f} M a window in the head. Input: one grey face crop of "
        f"{manifest.preprocess.size}x{manifest.preprocess.size} pixels a frame; windows of {manifest.sequence.window} "
        f"frames at {manifest.sequence.frame_rate:g} a second. Output: {', '.join(manifest.labels)}.",
        *_sparsity(model),
        "## Data and protocol",
        _protocol(training),
        *_unjudged(manifest),
        "## Accuracy",
        "One crop, no test-time augmentation, T = 1. Nothing was chosen on PrivateTest; every look at it is logged.",
        "\n".join(_table(_ACCURACY_COLUMNS, _accuracy_rows(manifest.variants))),
        "Recall by class:",
        "\n".join(_table(("variant", "split", *manifest.labels), _class_rows(manifest))),
        *_windows(training),
        "## Limits",
        _LIMITS,
        "## Law",
        _LAW,
    ]
    return "\n\n".join(parts) + "\n"


def _sparsity(model: Mapping[str, Any]) -> Iterator[str]:
    if "sparsity" in model:
        yield (
            f"Of every four weights along the input channels of {len(model['sparsity']['convolutions'])} convolutions "
            f"at most two are not zero ({model['sparsity']['pattern']}), which sparse tensor cores can make use of; "
            "the counts above are those of dense weights."
        )


_ACCURACY_COLUMNS: Final = (
    "variant", "split", "n", "top-1", "without rows also in training", "macro-F1", "ECE", "encoder + head",
)  # fmt: skip


def _protocol(training: object) -> str:
    data = training.get("data", {}) if isinstance(training, dict) else {}
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in data.get("splits", {}).items())
    return (
        f"Data set {data.get('dataset', 'unknown')} ({splits}; sha256 {str(data.get('sha256', 'unknown'))[:16]}…). "
        "Trained on Training; architecture, epoch, temperature and thresholds chosen on PublicTest without the rows "
        "that also stand in Training (exact duplicates, 8 % of each test split); PrivateTest reported with and without "
        "such rows. The INT8 variants were calibrated on a hashed sample of Training and passed the gate whose figures "
        "the manifest holds."
    )


def _unjudged(manifest: Manifest) -> Iterator[str]:
    names = [variant.name for variant in manifest.variants if variant.name.endswith(QAT_SUFFIX)]
    if names:
        yield f"Not through the gate yet, since they come from training as they are: {', '.join(names)}."


def _accuracy_rows(variants: Sequence[Variant]) -> Iterator[tuple[str, ...]]:
    for variant in variants:
        size = sum(file.size_bytes for file in variant.graphs)
        for split, report in variant.metrics.items():
            without = report.top1_without_leaked
            yield (
                variant.name,
                split,
                f"{report.n:,}",
                f"{report.top1:.2%}",
                "–" if without is None else f"{without:.2%} of {report.n_without_leaked:,}",
                f"{report.macro_f1:.2%}",
                f"{report.ece:.4f}",
                f"{size / 1e6:.2f} MB",
            )


def _class_rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    for variant in manifest.variants:
        for split, report in variant.metrics.items():
            yield (variant.name, split, *(f"{report.per_class[label]:.1%}" for label in manifest.labels))


def _windows(training: object) -> Iterator[str]:
    windows = training.get("top1_by_window") if isinstance(training, dict) else None
    if windows:
        places = ((*name.rpartition("_")[::2], value) for name, value in windows.items())
        said = "; ".join(f"{kind.replace('_', ', ')}, T = {steps}: {value:.2%}" for kind, steps, value in places)
        yield f"Top-1 on PublicTest without leaked rows by window, FP32 in torch: {said}."


def _table(columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
