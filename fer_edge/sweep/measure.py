"""The measurement of a sweep's points: one interleaved run a provider, kept until a point changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fer_edge.bench import BenchOptions, run_bench
from fer_edge.bench.reference_cnn import reference_graph
from fer_edge.bench.report import BenchReport
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import claimed
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.data.dataset import Role
from fer_edge.runtime.providers import open_session
from fer_edge.sweep.folder import SweepFolder
from fer_edge.sweep.recipe import SweepRecipe

__all__ = ["Bench", "expect_providers", "variants_of"]


def expect_providers(recipe: SweepRecipe) -> None:
    """Find out before any work whether every provider is to be had.

    Raises:
        InputError: an unknown provider.
        SessionError: one that is not to be had here.
        MissingPackageError: its package is not installed.
    """
    for provider in recipe.providers:
        open_session(reference_graph(), provider=provider).close()


def variants_of(bundle: Bundle, recipe: SweepRecipe) -> list[str]:
    """Those of the recipe's precisions that a bundle has."""
    held = {variant.name for variant in bundle.manifest.variants}
    return [name for name in recipe.precisions if name in held]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How points are measured.

    Attributes:
        folder: the sweep's.
        recipe: the sweep's.
        dataset: the sweep's.
        split: ``"choose"``, or ``"report"``, whose every evaluation of PrivateTest goes on record.
        private_log: where; the repository's log by default.
        command: recorded in the benchmark.
        again: measure even what lies measured in the folder.
        say: told of progress.
    """

    folder: SweepFolder
    recipe: SweepRecipe
    dataset: Dataset
    split: Role
    private_log: Path | None
    command: str | None
    again: bool
    say: Progress

    def measure(self, provider: str, bundles: Sequence[Bundle]) -> BenchReport:
        """Every point of one provider, in one process and interleaved with the reference CNN.

        A measurement of the same points on the same rows that lies in the folder already is taken as it is.

        Raises:
            InputError: another process is measuring in this folder.
            SessionError: the provider failed.
            OutputError: the folder or the log cannot be written.
        """
        wanted = {(bundle.sha256, name) for bundle in bundles for name in variants_of(bundle, self.recipe)}
        file = self.folder.bench_place / f"{provider}-{self.split}.json"
        with claimed(self.folder.bench_place) as ours:
            if not ours:
                raise InputError(f"another process is measuring in {self.folder.path}; wait for it and start again")
            earlier = BenchReport.read(file) if file.exists() else None
            if earlier is not None and not self.again and self._still_holds(earlier, wanted):
                return earlier
            measured = run_bench(
                [bundle for bundle in bundles if variants_of(bundle, self.recipe)],
                data=self.dataset,
                options=BenchOptions(
                    split=self.split,
                    variants=sorted({name for _, name in wanted}),
                    providers=(provider,),
                    threads=self.recipe.threads,
                    timing=replace(self.recipe.timing, cold_starts=0, idle_s=None),
                    private_log=self.private_log,
                    command=self.command,
                ),
                progress=lambda what, done, total: self.say(f"{provider}: {what}", done, total),
            )
            measured.write(file)
        return measured

    def _still_holds(self, report: BenchReport, wanted: set[tuple[str, str]]) -> bool:
        return (
            report.data is not None
            and report.data.split_sha256 == self.dataset.split(self.split).sha256
            and report.timing == replace(self.recipe.timing, cold_starts=0, idle_s=None)
            and {result.threads for result in report.variants} == {self.recipe.threads}
            and {(result.sha256, result.name) for result in report.variants} == wanted
        )
