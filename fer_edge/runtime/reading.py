"""From a head's probabilities to an estimate: priors of the place of use, `not judgeable`, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.labels import FER2013_FREQUENCIES, Reading
from fer_edge.core.manifest import Manifest
from fer_edge.core.types import Array
from fer_edge.runtime.arguments import check_type, number
from fer_edge.runtime.estimate import CANNOT_BE_JUDGED, UNKNOWN, ExpressionEstimate
from fer_edge.runtime.inference import Network
from fer_edge.runtime.quality import NOT_A_FACE, UNMEASURED, Quality

__all__ = ["NAMED_PRIORS", "HeadReader", "Moment", "Priors", "prior_weights"]

Priors: TypeAlias = "Mapping[str, float] | str | None"
"""Class frequencies at the place of use, by label; a name of `NAMED_PRIORS`; or None for those of the training."""

NAMED_PRIORS: Final[Mapping[str, float]] = {"balanced": 1.0, "half": 0.5}
"""The power of the training's class frequencies that is divided out: all of them, or their root."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When an estimate was made, and on what: the fields of `ExpressionEstimate` of these names."""

    age_ms: float
    window_fill: float
    timestamp_s: float | None = None
    degraded: str | None = None
    quality: Quality = UNMEASURED

    def rejected(self) -> ExpressionEstimate:
        """Build the estimate of a crop that is not fit to be judged."""
        return ExpressionEstimate(
            label=UNKNOWN,
            unknown_because=self.quality.detail,
            quality=self.quality.score,
            quality_reasons=self.quality.reasons,
            timestamp_s=self.timestamp_s,
            age_ms=self.age_ms,
            window_fill=self.window_fill,
            state="OK" if self.degraded is None else "DEGRADED",
            state_because=self.degraded,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadReader:
    """How one head's probabilities become estimates.

    Attributes:
        reading: the head.
        labels: the expressions, in output order.
        unknown_threshold: below this probability of the most probable expression the label is ``"unknown"``.
        not_judgeable_threshold: above this probability of `not judgeable` it is too; None for the head `fer2013`.
        weights: float (C,), factors of the expressions' probabilities (`prior_weights`), or None.
    """

    reading: Reading
    labels: tuple[str, ...]
    unknown_threshold: float
    not_judgeable_threshold: float | None
    weights: Array | None

    @classmethod
    def of(cls, network: Network, priors: Priors) -> HeadReader:
        """Read a network's head with the given priors.

        Raises:
            InputError: as `prior_weights`.
            BundleError: as `prior_weights`.
        """
        crowd = network.variant.crowd if network.reading == "crowd" else None
        head = network.variant if crowd is None else crowd
        return cls(
            reading=network.reading,
            labels=network.manifest.labels,
            unknown_threshold=head.unknown_threshold,
            not_judgeable_threshold=None if crowd is None else crowd.not_judgeable_threshold,
            weights=prior_weights(network.manifest, network.reading, priors),
        )

    def split(self, row: Array) -> tuple[Array, float | None]:
        """Return the probabilities of the expressions, of sum 1, and that of `not judgeable` where the head has it."""
        seven, rejected = row, None
        if self.not_judgeable_threshold is not None:
            rejected = float(row[-1])
            seven = row[:-1] / max(float(row[:-1].sum()), float(np.finfo(np.float32).tiny))
        if self.weights is not None:
            seven = seven * self.weights
            seven = seven / max(float(seven.sum()), float(np.finfo(np.float32).tiny))
        return seven, rejected

    def estimate(
        self, row: Array, moment: Moment, *, last: str | None = None, change_margin: float = 0.0
    ) -> ExpressionEstimate:
        """Turn one row of the head's probabilities into an estimate.

        Args:
            row: float32 (C,), as `Network.outputs`.
            moment: when it was made, and on what.
            last: the label that was shown last.
            change_margin: another label must be more probable than `last` by this much.
        """
        seven, rejected = self.split(row)
        best = int(np.argmax(seven))
        held = self.labels.index(last) if last in self.labels else best
        if change_margin and seven[held] >= max(self.unknown_threshold, seven[best] - change_margin):
            best = held
        doubt, quality, reasons = None, moment.quality.score, tuple[str, ...]()
        if seven[best] < self.unknown_threshold:
            doubt = (
                f"the most probable, {self.labels[best]}, has {seven[best]:.2f}, below the threshold "
                f"{self.unknown_threshold:.2f}"
            )
        if rejected is not None and self.not_judgeable_threshold is not None:
            if rejected > self.not_judgeable_threshold:
                doubt, reasons = CANNOT_BE_JUDGED, (NOT_A_FACE,)
            if quality is not None:
                quality = min(quality, _judgeable(rejected, self.not_judgeable_threshold))
        return ExpressionEstimate(
            label=self.labels[best] if doubt is None else UNKNOWN,
            unknown_because=doubt,
            probabilities={label: float(value) for label, value in zip(self.labels, seven, strict=True)},
            quality=quality,
            quality_reasons=reasons,
            not_judgeable=rejected,
            reading=self.reading,
            timestamp_s=moment.timestamp_s,
            age_ms=moment.age_ms,
            window_fill=moment.window_fill,
            state="OK" if moment.degraded is None else "DEGRADED",
            state_because=moment.degraded,
        )


def _judgeable(rejected: float, threshold: float) -> float:
    """Return a quality: 1 where the face can certainly be judged, 1/2 at the threshold, 0 at twice that."""
    return max(0.0, 1 - 0.5 * rejected / threshold) if threshold > 0 else float(rejected <= 0)


def prior_weights(manifest: Manifest, reading: Reading, priors: Priors) -> Array | None:
    """Return the factor of each expression's probability: float64 (C,); None without priors.

    A probability p learnt with the class frequency f becomes proportional to p g / f where the expression's frequency
    is g (Saerens et al. 2002, Neural Computation 14). Expressions that a mapping does not name share the rest as in the
    training.

    Args:
        manifest: holds the training's class frequencies; FER2013's own are used where it lacks those of `fer2013`.
        reading: the head.
        priors: frequencies by label, a name of `NAMED_PRIORS`, or None.

    Raises:
        InputError: an unknown name or label, or frequencies that do not sum to 1.
        BundleError: the bundle does not record the training's class frequencies.
    """
    if priors is None:
        return None
    known = _training_frequencies(manifest, reading)
    frequencies = np.array([known[label] for label in manifest.labels])
    if isinstance(priors, str):
        if priors not in NAMED_PRIORS:
            raise InputError(f"priors: got {priors!r}, expected one of {', '.join(NAMED_PRIORS)}, or a mapping")
        return np.asarray(frequencies ** -NAMED_PRIORS[priors])
    check_type("priors", priors, Mapping, "a mapping of labels to frequencies, 'balanced', 'half' or None")
    if unknown := sorted(set(priors) - set(manifest.labels)):
        raise InputError(f"priors: got {unknown[0]!r}, expected labels of the bundle: {', '.join(manifest.labels)}")
    given = {label: number(f"priors[{label!r}]", value) for label, value in priors.items()}
    rest, total = [label for label in manifest.labels if label not in given], sum(given.values())
    if (rest and total >= 1) or (not rest and abs(total - 1) > 1e-3):
        raise InputError(f"priors: got a sum of {total:g}, expected {'less than 1' if rest else '1'}")
    scale = (1 - total) / sum(known[label] for label in rest) if rest else 0.0
    wanted = np.array([given.get(label, scale * known[label]) for label in manifest.labels])
    return np.asarray(wanted / frequencies)


def _training_frequencies(manifest: Manifest, reading: Reading) -> Mapping[str, float]:
    recorded = manifest.class_frequencies.get(reading)
    if recorded is None and reading == "fer2013" and set(manifest.labels) == set(FER2013_FREQUENCIES):
        trained = {facts.dataset for facts in manifest.data if facts.used_for == "training"}
        recorded = FER2013_FREQUENCIES if trained == {"fer2013"} else None
    if recorded is None:
        raise BundleError(
            f"priors: the bundle {manifest.name!r} does not record the class frequencies of its training; export it "
            "again from its run"
        )
    return recorded
