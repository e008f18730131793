"""Facts of the data that a bundle's weights were made from: data sets, licence, limits, intended use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from fer_edge.core.manifest import NOT_STATED, DataFacts

__all__ = ["intended_use", "used_data", "weights_licence"]

Use = Literal["training", "initial weights", "teacher"]

_LICENCES: Final[Mapping[str, str]] = {
    "fer2013": "Research use only, apart from the code's Apache-2.0: trained on FER2013, whose terms are research use. "
    "See LICENSE-WEIGHTS.md.",
    "ckplus": "Research use only, apart from the code's Apache-2.0: trained on CK+, whose terms are research use.",
}
"""Licence of weights by data set; for other data only its owner can state one."""

_LIMITS: Final[Mapping[str, tuple[str, ...]]] = {
    "fer2013": (
        "FER2013's labels are noisy: people agree with them on about 65 of 100 images, and no honest model comes near "
        "100 %.",
        "`disgust` and `fear` are rare in FER2013 and often missed; check the table by class before relying on either.",
        "FER2013's faces were found by web search and cropped around the face. Infrared cameras, steep angles, sun "
        "glare, masks and sunglasses are not in the data. No person's age, skin or sex is recorded, so no fairness "
        "figure can be given.",
    ),
    "ckplus": ("CK+'s expressions are posed, frontal and evenly lit, by 123 people in a laboratory.",),
    "synthetic": ("The training faces are drawings. Accuracy on people is unknown.",),
}


def used_data(training: Mapping[str, Any]) -> tuple[DataFacts, ...]:
    """List the data sets behind a training record, those of its initial weights and teachers included."""
    found: dict[tuple[str, str], DataFacts] = {}
    for facts in _walk(training, "training"):
        known = [name for name, _ in found]
        if (facts.dataset, facts.sha256) not in found and not (facts.dataset in known and not facts.sha256):
            found[facts.dataset, facts.sha256] = facts
    return tuple(found.values())


def _walk(record: Any, use: Use) -> Iterator[DataFacts]:
    if isinstance(record, Sequence) and not isinstance(record, str):
        for each in record:
            yield from _walk(each, use)
    if not isinstance(record, Mapping):
        return
    data = record.get("data")
    if isinstance(data, Mapping) and "dataset" in data:
        yield _facts(data, use)
    for key, value in record.items():
        if key == "choose" and isinstance(value, Mapping) and "dataset" in value:
            yield _facts({"dataset": value["dataset"]}, use)
        elif key in ("init", "teacher"):
            yield from _walk(value, "initial weights" if key == "init" else "teacher")
        elif key != "data":
            yield from _walk(value, use)


def _facts(data: Mapping[str, Any], use: Use) -> DataFacts:
    name = str(data["dataset"])
    return DataFacts(
        dataset=name,
        used_for=use,
        sha256=str(data.get("sha256", "")),
        splits={split: int(facts["rows"]) for split, facts in data.get("splits", {}).items()},
        licence="research use only" if name in _LICENCES else NOT_STATED,
        limits=_LIMITS.get(name, ()),
    )


def weights_licence(data: Sequence[DataFacts]) -> str:
    """Return the licence that the terms of known data sets impose, else `NOT_STATED`."""
    stated = dict.fromkeys(_LICENCES[facts.dataset] for facts in data if facts.dataset in _LICENCES)
    return " ".join(stated) or NOT_STATED


def intended_use(labels: Sequence[str], data: Sequence[DataFacts]) -> str:
    """Return a statement of the intended use for these labels and data."""
    if data and all(facts.dataset == "synthetic" for facts in data):
        return "Tests and demonstrations: the weights have seen drawn faces only."
    return (
        f"An auxiliary signal on the device, with nothing stored: the visible facial expression, one of "
        f"{len(labels)} ({', '.join(labels)}), from a face crop or a sequence of them. It does not measure what a "
        "person feels, and must not alone decide anything that matters to a person."
    )
