"""Parity stage by stage: torch, ONNX in FP32, Q/DQ, and every engine, each compared with the stage before it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import update_bundle
from fer_edge.core.errors import BundleError, MissingPackageError, SessionError, require
from fer_edge.core.json import expect
from fer_edge.core.manifest import Variant, timestamp
from fer_edge.core.provenance import read_provenance
from fer_edge.core.types import Array, Float32, Int64, Progress, Uint8, no_progress
from fer_edge.export.job import Part, Run
from fer_edge.export.parity.layer_search import Divergence, Opener, first_divergence, relative_spread
from fer_edge.export.parity.report import ParityLimits, ParityReport, StageReport
from fer_edge.export.parity.torch_record import RecordedOutputs, pattern_frames, recorded_outputs
from fer_edge.export.target import TargetPlan
from fer_edge.runtime.inference import suitable_variants
from fer_edge.runtime.providers import IDENTITY_GRAPH, PROVIDERS, open_session

__all__ = ["TorchOutputs", "available_engines", "check_parity", "engine_opener", "write_verdict"]

_REFERENCE: Final = "cpu"  # ONNX Runtime computes every operator as ONNX defines it
_BATCH: Final = 64
_SEARCHED: Final = 8  # frames used in the search for the first diverging layer
_BATCHED: Final[tuple[tuple[Part, str], ...]] = (("encoder", "frames"), ("head", "features"))


class TorchOutputs(Protocol):
    """A network in torch, whose live outputs replace the recorded ones."""

    def encode(self, frames: Uint8) -> Float32:
        """Compute features float32 (N, F) of frames uint8 (N, S, S)."""

    def logits(self, features: Float32, length: Int64) -> Float32:
        """Compute logits float32 (B, C) of features float32 (B, T, F) and lengths int64 (B,)."""


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Logits of every frame alone, then of every full window; mean and spread of each frame's features, where known."""

    single: Float32
    windows: Float32
    features: Array | None = None

    @property
    def logits(self) -> Float32:
        return np.concatenate([self.single, self.windows])


@dataclass(frozen=True, eq=False)
class _Graphs:
    """Encoder and head with the engine that runs them."""

    encoder: bytes
    head: bytes
    opener: Opener


def engine_opener(provider: str) -> Opener:
    """Return a function that opens a graph in one of the runtime's engines; for LiteRT it is converted first."""
    if provider == "litert":
        require("ai_edge_litert", needed_by="the provider 'litert'", extra="litert")
        from fer_edge.export.litert_backend import litert_run

        return litert_run

    @contextmanager
    def opened(graph: bytes) -> Iterator[Run]:
        with open_session(graph, provider=provider) as session:
            yield session.run

    return opened


def available_engines() -> tuple[dict[str, Opener], dict[str, str]]:
    """Return the engines that run graphs here, and the others with the reason; without ONNX Runtime on the CPU."""
    found: dict[str, Opener] = {}
    missing: dict[str, str] = {}
    for provider in PROVIDERS:
        if provider == _REFERENCE:
            continue
        try:
            opener = engine_opener(provider)
            if provider != "litert":
                open_session(IDENTITY_GRAPH, provider=provider).close()
            found[provider] = opener
        except (MissingPackageError, SessionError) as error:
            missing[provider] = str(error)
    return found, missing


def check_parity(
    bundle: Bundle,
    frames: Uint8,
    *,
    described: str,
    variants: Sequence[str] = (),
    torch: TorchOutputs | None = None,
    engines: Mapping[str, Opener] | None = None,
    target: TargetPlan | None = None,
    limits: ParityLimits | None = None,
    progress: Progress | None = None,
) -> ParityReport:
    """Compare every stage with the one before it.

    Args:
        bundle: an open bundle; the other variants descend from its first.
        frames: uint8 (N, S, S), prepared as the manifest states; at least a window's length.
        described: the frames in words, for the report.
        variants: names; all by default.
        torch: the network that the bundle was made from; by default its recorded outputs are used.
        engines: openers by name; by default the available ones, on the variants that suit them.
        target: a target, whose files are written to a temporary folder and compared with their variant.
        limits: allowed differences; by default those for real faces.

    Returns:
        the report, whether or not it passed.

    Raises:
        BundleError: no such variant, or a damaged bundle.
        FerEdgeError: the first of the target's `errors`.
        MissingPackageError: ONNX Runtime or onnx is not installed.
    """
    require("onnxruntime", needed_by="the parity check", extra="cpu")
    require("onnx", needed_by="the parity check", extra="calibrate")
    if target is not None and target.errors:
        raise target.errors[0]
    check = _Check(bundle, frames, limits or ParityLimits(), progress or no_progress)
    manifest = bundle.manifest
    found, missing = available_engines() if engines is None else (dict(engines), {})
    stages: list[StageReport] = []
    for variant in [bundle.variant(name) for name in variants] or manifest.variants:
        suited = [name for name in PROVIDERS if variant.name in suitable_variants(manifest, provider=name)]
        if variant.parent is None:
            stages.append(check.from_torch(variant, torch))
        else:
            stages.append(check.quantized(bundle.variant(variant.parent), variant))
        run = [name for name in found if engines is not None or name in suited]
        stages += [check.engine(variant, name, found[name]) for name in run]
        stages += [_skipped(variant, f"{variant.name} in {name}", missing[name]) for name in missing if name in suited]
        if target is not None and target.job.variant == variant.name:
            stages.append(check.target(variant, target))
    return ParityReport(
        bundle=manifest.name, frames=described, created=timestamp(), limits=check.limits, stages=tuple(stages)
    )


def write_verdict(bundle: Bundle, report: ParityReport) -> Bundle:
    """Write each variant's stages and verdict into the manifest, under ``parity.chain``.

    Raises:
        BundleError: the bundle changed since it was opened.
        OutputError: it cannot be written; it is unchanged.
    """
    manifest = bundle.manifest
    for variant in manifest.variants:
        own = tuple(stage for stage in report.stages if stage.variant == variant.name)
        if own:
            verdict = replace(report, stages=own).to_json()
            manifest = manifest.with_variant(replace(variant, parity={**variant.parity, "chain": verdict}))
    return update_bundle(bundle, manifest)


class _Check:
    """One parity check: frames, limits, and the reference outputs computed so far."""

    def __init__(self, bundle: Bundle, frames: Uint8, limits: ParityLimits, progress: Progress) -> None:
        self._window = bundle.manifest.sequence.window
        expect(len(frames) >= self._window, "frames", len(frames), f"at least {self._window}, the length of a window")
        self.bundle, self.frames, self.limits, self._progress = bundle, frames, limits, progress
        self._references: dict[str, _Outputs] = {}

    def from_torch(self, variant: Variant, torch: TorchOutputs | None) -> StageReport:
        """Compare torch, live or as recorded, with the float graphs in ONNX Runtime."""
        stage = "torch -> ONNX"
        if torch is not None:
            self._progress("computing in torch", 0, 1)
            return self._from_torch(variant, stage, self._outputs(torch.encode, torch.logits), self._reference(variant))
        try:
            record = recorded_outputs(read_provenance(self.bundle), variant.name)
        except BundleError as error:
            return _skipped(variant, stage, str(error))
        if record is None:
            return _skipped(variant, stage, "torch's outputs are not recorded; give the run with --run")
        frames = pattern_frames(record.frames, self.bundle.manifest.preprocess.size)
        return self._from_torch(variant, stage, _recorded(record), self._run(self._graphs(variant), frames=frames))

    def quantized(self, parent: Variant, variant: Variant) -> StageReport:
        """Compare a variant with its parent, both in ONNX Runtime."""
        stage = f"{parent.name} -> {variant.name}"
        report = self._judged(variant, stage, self._reference(parent), self._reference(variant))
        return self._located(report, self._graphs(parent), self._graphs(variant), self.limits.layer_quantized)

    def engine(self, variant: Variant, name: str, opener: Opener) -> StageReport:
        """Compare a variant in an engine with the same graphs in ONNX Runtime."""
        stage, exact = f"{variant.name} in {name}", variant.precision == "fp32"
        graphs = replace(self._graphs(variant), opener=opener)
        try:
            got = self._run(graphs, what=stage)
        except SessionError as error:
            return replace(_skipped(variant, stage, str(error)), provider=name, passed=False)
        report = replace(self._judged(variant, stage, self._reference(variant), got, exact=exact), provider=name)
        return self._located(report, self._graphs(variant), graphs, self.limits.layer(exact=exact))

    def target(self, variant: Variant, plan: TargetPlan) -> StageReport:
        """Compare a target's files with the variant in ONNX Runtime, over full windows; the passes are searched."""
        job, backend, stage = plan.job, plan.backend, f"{variant.name} for {plan.job.name}"
        with tempfile.TemporaryDirectory(prefix="fer-edge-") as name:
            folder = Path(name)
            backend.write(folder, self._progress)
            if backend.not_run or backend.parity is not None:
                return _skipped(variant, stage, backend.not_run or "the backend compares the files itself")
            faces, batch = (job.shapes[part][name].max[0] for part, name in _BATCHED)
            with backend.open(folder, "encoder") as encoder, backend.open(folder, "head") as head:
                features = _batched(self.frames, faces, lambda part: encoder({"frames": part})["features"])
                windows = _batched(self._windows(features), batch, lambda part: head(self._full(part))["logits"])
        expected, nothing = self._reference(variant), windows[:0]
        expected, got = replace(expected, single=nothing), _Outputs(nothing, windows)
        exact = job.precision in ("variant", "fp32") and variant.precision == "fp32"
        report = self._judged(variant, stage, expected, got, exact=exact)
        own = self._graphs(variant)
        passed = replace(own, encoder=job.graphs["encoder"], head=job.graphs["head"])
        return self._located(report, own, passed, self.limits.layer(exact=exact))

    def _reference(self, variant: Variant) -> _Outputs:
        if variant.name not in self._references:
            outputs = self._run(self._graphs(variant), what=f"{variant.name} in ONNX Runtime")
            self._references[variant.name] = outputs
        return self._references[variant.name]

    def _graphs(self, variant: Variant) -> _Graphs:
        encoder, head = (self.bundle.read_graph(file) for file in variant.graphs)
        return _Graphs(encoder, head, engine_opener(_REFERENCE))

    def _run(self, graphs: _Graphs, *, frames: Uint8 | None = None, what: str = "") -> _Outputs:
        with graphs.opener(graphs.encoder) as encoder, graphs.opener(graphs.head) as head:
            return self._outputs(
                lambda part: encoder({"frames": part})["features"],
                lambda features, length: head({"features": features, "length": length})["logits"],
                frames=frames,
                what=what,
            )

    def _outputs(
        self,
        encode: Callable[[Uint8], Array],
        logits: Callable[[Array, Array], Array],
        *,
        frames: Uint8 | None = None,
        what: str = "",
    ) -> _Outputs:
        frames = self.frames if frames is None else frames
        done = 0

        def encoded(part: Uint8) -> Array:
            nonlocal done
            done += len(part)
            if what:
                self._progress(what, done, len(frames))
            return encode(part)

        features = _batched(frames, _BATCH, encoded)
        single = _batched(features, _BATCH, lambda part: logits(part[:, None].copy(), np.ones(len(part), np.int64)))
        windows = _batched(self._windows(features), _BATCH, lambda part: logits(*self._full(part).values()))
        return _Outputs(single, windows, np.stack([features.mean(axis=1), features.std(axis=1)]))

    def _windows(self, features: Array) -> Array:
        """Cut features into full windows, in order: float32 (B, T, F)."""
        whole = len(features) // self._window
        return features[: whole * self._window].reshape(whole, self._window, -1)

    def _full(self, windows: Array) -> dict[str, Array]:
        return {"features": windows, "length": np.full(len(windows), self._window, np.int64)}

    def _judged(
        self, variant: Variant, stage: str, expected: _Outputs, got: _Outputs, *, exact: bool = False
    ) -> StageReport:
        want, have, limits = expected.logits, got.logits, self.limits
        difference = np.abs(have.astype(np.float64) - want)
        agreement = float((want.argmax(axis=1) == have.argmax(axis=1)).mean())
        spread, largest = relative_spread(want, have), float(difference.max())
        if exact:
            limit, passed = f"difference <= {limits.float_difference:g}", largest <= limits.float_difference
        else:
            limit = f"same label >= {limits.agreement:.0%}, spread <= {limits.spread:g}"
            passed = agreement >= limits.agreement and spread <= limits.spread
        return StageReport(
            variant=variant.name,
            stage=stage,
            rows=len(want),
            max_abs_diff=largest,
            mean_abs_diff=float(difference.mean()),
            spread=spread,
            agreement=agreement,
            limit=limit,
            passed=passed,
        )

    def _from_torch(self, variant: Variant, stage: str, expected: _Outputs, got: _Outputs) -> StageReport:
        """Judge the stage and name the part that fails: torch's tensors have no names for a search by layer."""
        report = self._judged(variant, stage, expected, got, exact=True)
        if report.passed or expected.features is None or got.features is None:
            return report
        difference = float(np.abs(got.features - expected.features).max())
        part = "encoder" if difference > self.limits.float_difference else "head"
        remark = f"the {part} is to blame: mean and spread of a face's features differ by up to {difference:.2g}"
        return replace(report, remark=remark)

    def _located(self, report: StageReport, trusted: _Graphs, other: _Graphs, limit: float) -> StageReport:
        """Search a failed stage for the first diverging layer: in the encoder, then in the head on equal features."""
        if report.passed is not False:
            return report
        frames = np.ascontiguousarray(self.frames[:_SEARCHED])
        with trusted.opener(trusted.encoder) as run:
            features = run({"frames": frames})["features"]
        searches: tuple[tuple[str, bytes, bytes, dict[str, Array]], ...] = (
            ("encoder", trusted.encoder, other.encoder, {"frames": frames}),
            (
                "head",
                trusted.head,
                other.head,
                {"features": features[:, None].copy(), "length": np.ones(len(features), np.int64)},
            ),
        )
        found: Divergence | None = None
        for part, own, graph, feeds in searches:
            pair = (own, trusted.opener), (graph, other.opener)
            here = first_divergence(*pair, feeds, part=part, limit=limit, progress=self._progress)
            if here is not None and (found is None or here.spread > found.spread):
                found = here
            if found is not None and found.first:
                break
        return replace(report, divergence=found)


def _recorded(record: RecordedOutputs) -> _Outputs:
    return _Outputs(
        np.array(record.logits, np.float32),
        np.array(record.window_logits, np.float32),
        np.array([record.feature_mean, record.feature_spread]),
    )


def _batched(rows: Array, batch: int, compute: Callable[[Any], Array]) -> Array:
    parts = [compute(np.ascontiguousarray(rows[start : start + batch])) for start in range(0, len(rows), batch)]
    return np.concatenate(parts)


def _skipped(variant: Variant, stage: str, reason: str) -> StageReport:
    return StageReport(variant=variant.name, stage=stage, remark=reason)
