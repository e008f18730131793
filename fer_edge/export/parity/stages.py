"""The parity chain: torch, ONNX in FP32, Q/DQ, and every engine, each held against the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import BundleError, MissingPackageError, SessionError, require
from fer_edge.core.json import expect
from fer_edge.core.manifest import Variant, timestamp
from fer_edge.core.types import Array, Float32, Int64, Progress, Uint8
from fer_edge.export.backend import Part, Run
from fer_edge.export.parity.layer_search import Divergence, Opener, first_divergence, spread_of_difference
from fer_edge.export.parity.report import ChainReport, ParityLimits, StageReport
from fer_edge.export.parity.torch_record import RecordedOutputs, pattern_frames, recorded_outputs
from fer_edge.runtime.inference import suitable_variants
from fer_edge.runtime.providers import IDENTITY_GRAPH, PROVIDERS, open_session

__all__ = ["TargetFiles", "TorchOutputs", "check_chain", "engine_opener", "engines_at_hand", "write_verdict"]


_TRUSTED: Final = "cpu"  # ONNX Runtime computes every operator as ONNX defines it: what the engines are held against
_BATCH: Final = 64
_SEARCHED: Final = 8  # frames that the search for the first diverging layer looks at


class TorchOutputs(Protocol):
    """Torch's network, open: given a run, the chain begins with what torch computes now."""

    def encode(self, frames: Uint8) -> Float32:
        """Features float32 (N, F) of uint8 (N, S, S)."""

    def logits(self, features: Float32, length: Int64) -> Float32:
        """Logits float32 (B, C) of features float32 (B, T, F) and lengths int64 (B,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetFiles:
    """A target's files, written and ready to run.

    Attributes:
        name: the target's.
        variant: whose graphs it was made from.
        graphs: these graphs after the target's passes, by part.
        open: opens one part's file; None where this machine cannot run it.
        not_run: why `open` is None.
        frames: rows that the encoder takes at once.
        windows: windows that the head takes at once.
        exact: the files compute the variant's own floats: neither rounded further nor in FP16.
    """

    name: str
    variant: str
    graphs: Mapping[Part, bytes]
    open: Callable[[Part], AbstractContextManager[Run]] | None
    not_run: str
    frames: int
    windows: int
    exact: bool


@dataclass(frozen=True, eq=False)
class _Logits:
    """What one way of computing makes of the frames: each on its own, and in full windows; and of each its features'
    mean and standard deviation, which tell whether the encoder or the head is to blame."""

    single: Float32
    windows: Float32
    feature_mean: NDArray[np.float64] | None = None
    feature_spread: NDArray[np.float64] | None = None

    @property
    def all(self) -> Float32:
        return np.concatenate([self.single, self.windows])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Graphs:
    """A variant's graphs with the engine that runs them."""

    encoder: bytes
    head: bytes
    opener: Opener

    def parts(self) -> Iterator[tuple[str, bytes]]:
        yield from (("encoder", self.encoder), ("head", self.head))


def engine_opener(provider: str, *, threads: int = 1) -> Opener:
    """What opens a graph in one of the runtime's engines."""

    @contextmanager
    def opened(graph: bytes) -> Iterator[Run]:
        with open_session(graph, provider=provider, threads=threads) as session:
            yield session.run

    return opened


def engines_at_hand() -> tuple[dict[str, Opener], dict[str, str]]:
    """The engines that run graphs here, and those that do not with the reason; without ONNX Runtime on the CPU."""
    found: dict[str, Opener] = {}
    missing: dict[str, str] = {}
    for provider in PROVIDERS:
        if provider == _TRUSTED:
            continue
        try:
            open_session(IDENTITY_GRAPH, provider=provider).close()
            found[provider] = engine_opener(provider)
        except (MissingPackageError, SessionError) as error:
            missing[provider] = str(error)
    return found, missing


def check_chain(
    bundle: Bundle,
    frames: Uint8,
    *,
    described: str,
    variants: Sequence[str] = (),
    torch: TorchOutputs | None = None,
    engines: Mapping[str, Opener] | None = None,
    target: TargetFiles | None = None,
    limits: ParityLimits | None = None,
    progress: Progress | None = None,
) -> ChainReport:
    """Hold every stage against the one before it.

    Args:
        bundle: an open bundle; its first variant is the one the others descend from.
        frames: uint8 (N, S, S), prepared as the bundle says; at least a window's length.
        described: what they are, for the report.
        variants: names; all where none is given.
        torch: the network that the bundle was made from; without it the record in the manifest is used.
        engines: what opens graphs, by name; those at hand, on the variants that suit them, where None.
        target: a target's files; checked with the variant that they were made from.
        limits: what may differ; by default what suits real faces.
        progress: called with (what, done, total).

    Returns:
        the report, whether or not it passed.

    Raises:
        BundleError: no such variant, or a damaged bundle.
        MissingPackageError: ONNX Runtime or onnx is not installed.
    """
    require("onnxruntime", needed_by="the parity chain", extra="cpu")
    require("onnx", needed_by="the parity chain", extra="calibrate")
    chain = _Chain(bundle, frames, limits or ParityLimits(), progress or (lambda _what, _done, _total: None))
    chosen = [bundle.variant(name) for name in variants] or list(bundle.manifest.variants)
    found, missing = engines_at_hand() if engines is None else (dict(engines), {})
    stages: list[StageReport] = []
    for variant in chosen:
        parent = bundle.manifest.variants[0] if variant.parent is None else bundle.variant(variant.parent)
        stages.append(chain.from_torch(variant, torch) if variant.parent is None else chain.quantized(parent, variant))
        for name, opener in found.items():
            if engines is not None or variant.name in suitable_variants(bundle.manifest, provider=name):
                stages.append(chain.engine(variant, name, opener))
        stages += [
            _skipped(variant, f"{variant.name} in {name}", reason)
            for name, reason in missing.items()
            if variant.name in suitable_variants(bundle.manifest, provider=name)
        ]
        if target is not None and target.variant == variant.name:
            stages.append(chain.target(variant, target))
    return ChainReport(
        bundle=bundle.manifest.name,
        frames=described,
        created=timestamp(),
        limits=chain.limits,
        stages=tuple(stages),
    )


def write_verdict(bundle: Bundle, report: ChainReport) -> Bundle:
    """Write each variant's stages and verdict into the manifest, under `parity`.

    Raises:
        BundleError: the bundle changed since it was opened.
        OutputError: it cannot be written; it is as it was.
    """
    manifest = bundle.manifest
    for variant in manifest.variants:
        own = tuple(stage for stage in report.stages if stage.variant == variant.name)
        if own:
            verdict = replace(report, stages=own).to_json()
            manifest = manifest.with_variant(replace(variant, parity={**variant.parity, "chain": verdict}))
    return bundle.updated(manifest)


class _Chain:
    """One run of the chain: frames, limits, and the logits that were computed already."""

    def __init__(self, bundle: Bundle, frames: Uint8, limits: ParityLimits, progress: Progress) -> None:
        window = bundle.manifest.sequence.window
        expect(len(frames) >= window, "frames", len(frames), f"at least {window}, the length of a window")
        self.bundle, self.frames, self.limits, self._progress = bundle, frames, limits, progress
        self._window = window
        self._own: dict[str, _Logits] = {}

    def from_torch(self, variant: Variant, torch: TorchOutputs | None) -> StageReport:
        """Torch, live or as recorded, against the float graphs in ONNX Runtime."""
        stage = "torch -> ONNX"
        trusted = engine_opener(_TRUSTED)
        if torch is not None:
            self._progress("computing in torch", 0, 1)
            expected = self._logits(torch.encode, torch.logits)
            return self._blamed(
                self._judged(variant, stage, expected, self.own(variant), exact=True), expected, self.own(variant)
            )
        try:
            record = recorded_outputs(self.bundle.read_provenance(), variant.name)
        except BundleError as error:
            return _skipped(variant, stage, str(error))
        if record is None:
            return _skipped(variant, stage, "torch's outputs are not recorded; give the run with --run")
        frames = pattern_frames(record.frames, self.bundle.manifest.preprocess.size)
        with self._running(self._graphs(variant, trusted)) as (encoder, head):
            got = self._logits(encoder, head, frames)
        expected = _recorded(record)
        return self._blamed(self._judged(variant, stage, expected, got, exact=True), expected, got)

    def quantized(self, parent: Variant, variant: Variant) -> StageReport:
        """A variant against the one it was made from, both in ONNX Runtime."""
        trusted = engine_opener(_TRUSTED)
        pair = self._graphs(parent, trusted), self._graphs(variant, trusted)
        report = self._judged(variant, f"{parent.name} -> {variant.name}", self.own(parent), self.own(variant))
        return self._located(report, pair, self.limits.layer_quantized)

    def engine(self, variant: Variant, name: str, opener: Opener) -> StageReport:
        """A variant in an engine against the same graphs in ONNX Runtime."""
        stage = f"{variant.name} in {name}"
        graphs = self._graphs(variant, opener)
        try:
            with self._running(graphs) as (encoder, head):
                got = self._logits(encoder, head, what=stage)
        except SessionError as error:
            return replace(_skipped(variant, stage, str(error)), provider=name, passed=False)
        exact = variant.precision == "fp32"
        report = replace(self._judged(variant, stage, self.own(variant), got, exact=exact), provider=name)
        limit = self.limits.layer_float if exact else self.limits.layer_rounded
        return self._located(report, (self._graphs(variant, engine_opener(_TRUSTED)), graphs), limit)

    def target(self, variant: Variant, files: TargetFiles) -> StageReport:
        """A target's files against the variant in ONNX Runtime, over full windows; the graphs' passes are searched."""
        stage = f"{variant.name} for {files.name}"
        if files.open is None:
            return _skipped(variant, stage, files.not_run)
        with files.open("encoder") as encoder, files.open("head") as head:
            features = _in_turns(self.frames, files.frames, lambda part: encoder({"frames": part})["features"])
            windows = self._windows(features)
            got = _in_turns(windows, files.windows, lambda part: head(self._full(part))["logits"])
        own = self.own(variant)
        report = self._judged(variant, stage, replace(own, single=own.single[:0]), _Logits(got[:0], got), files.exact)
        trusted = engine_opener(_TRUSTED)
        passed = _Graphs(encoder=files.graphs["encoder"], head=files.graphs["head"], opener=trusted)
        limit = self.limits.layer_float if files.exact else self.limits.layer_rounded
        return self._located(report, (self._graphs(variant, trusted), passed), limit)

    def own(self, variant: Variant) -> _Logits:
        """A variant's logits in ONNX Runtime."""
        if variant.name not in self._own:
            with self._running(self._graphs(variant, engine_opener(_TRUSTED))) as (encoder, head):
                self._own[variant.name] = self._logits(encoder, head, what=f"{variant.name} in ONNX Runtime")
        return self._own[variant.name]

    def _graphs(self, variant: Variant, opener: Opener) -> _Graphs:
        encoder, head = (self.bundle.read_graph(file) for file in variant.graphs)
        return _Graphs(encoder=encoder, head=head, opener=opener)

    @contextmanager
    def _running(self, graphs: _Graphs) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
        with graphs.opener(graphs.encoder) as encoder, graphs.opener(graphs.head) as head:
            yield (
                lambda frames: encoder({"frames": frames})["features"],
                lambda features, length: head({"features": features, "length": length})["logits"],
            )

    def _logits(
        self,
        encoder: Callable[[Uint8], Array],
        head: Callable[[Array, Array], Array],
        frames: Uint8 | None = None,
        *,
        what: str = "",
    ) -> _Logits:
        frames = self.frames if frames is None else frames
        features, single = [], []
        for start in range(0, len(frames), _BATCH):
            batch = encoder(np.ascontiguousarray(frames[start : start + _BATCH]))
            features.append(batch)
            single.append(head(np.ascontiguousarray(batch[:, None]), np.ones(len(batch), np.int64)))
            if what:
                self._progress(what, min(start + _BATCH, len(frames)), len(frames))
        every = np.concatenate(features)
        windows = self._windows(every)
        together = _in_turns(windows, _BATCH, lambda part: head(*self._full(part).values()))
        return _Logits(np.concatenate(single), together, every.mean(axis=1), every.std(axis=1))

    def _windows(self, features: Array) -> Array:
        """Features in full windows, in order: float32 (B, T, F)."""
        whole = len(features) // self._window
        return features[: whole * self._window].reshape(whole, self._window, -1)

    def _full(self, windows: Array) -> dict[str, Array]:
        return {"features": windows, "length": np.full(len(windows), self._window, np.int64)}

    def _judged(
        self, variant: Variant, stage: str, expected: _Logits, got: _Logits, exact: bool = False
    ) -> StageReport:
        want, have = expected.all, got.all
        difference = np.abs(have.astype(np.float64) - want)
        agreement = float((want.argmax(axis=1) == have.argmax(axis=1)).mean())
        spread = spread_of_difference(want, have)
        largest = float(difference.max())
        limits = self.limits
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

    def _blamed(self, report: StageReport, expected: _Logits, got: _Logits) -> StageReport:
        """A failed stage against torch with the part that differs: torch's own tensors have no names to search by."""
        if report.passed is not False:
            return report
        difference = max(
            float(np.abs(np.asarray(have) - np.asarray(want)).max())
            for want, have in (
                (expected.feature_mean, got.feature_mean),
                (expected.feature_spread, got.feature_spread),
            )
        )
        part = "encoder" if difference > self.limits.float_difference else "head"
        remark = f"the {part} is to blame: mean and spread of a face's features differ by up to {difference:.2g}"
        return replace(report, remark=remark)

    def _located(self, report: StageReport, pair: tuple[_Graphs, _Graphs], limit: float) -> StageReport:
        """A failed stage with the layer at which it parts: in the encoder, else in the head on equal features."""
        if report.passed is not False:
            return report
        trusted, other = pair
        frames = np.ascontiguousarray(self.frames[:_SEARCHED])
        with trusted.opener(trusted.encoder) as run:
            features = run({"frames": frames})["features"]
        feeds: dict[str, dict[str, Array]] = {
            "encoder": {"frames": frames},
            "head": {"features": features[:, None].copy(), "length": np.ones(len(features), np.int64)},
        }
        found: Divergence | None = None
        for (part, own), (_, graph) in zip(trusted.parts(), other.parts(), strict=True):

            def searching(done: int, total: int, part: str = part) -> None:
                self._progress(f"{report.stage}: looking for the first diverging layer of the {part}", done, total)

            here = first_divergence(
                (own, trusted.opener), (graph, other.opener), feeds[part], part=part, limit=limit, progress=searching
            )
            if here is not None and (found is None or here.spread > found.spread):
                found = here
            if found is not None and found.first:
                break
        return replace(report, divergence=found)


def _recorded(record: RecordedOutputs) -> _Logits:
    return _Logits(
        np.array(record.logits, np.float32),
        np.array(record.window_logits, np.float32),
        np.array(record.feature_mean),
        np.array(record.feature_spread),
    )


def _in_turns(rows: Array, batch: int, compute: Callable[[Array], Array]) -> Array:
    parts = [compute(np.ascontiguousarray(rows[start : start + batch])) for start in range(0, len(rows), batch)]
    return np.concatenate(parts)


def _skipped(variant: Variant, stage: str, reason: str) -> StageReport:
    return StageReport(variant=variant.name, stage=stage, remark=reason)
