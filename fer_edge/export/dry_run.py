"""What an export would write, and why it would refuse, without writing anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError
from fer_edge.export.backend import PlannedFile, TargetJob
from fer_edge.export.job import target_job
from fer_edge.export.preflight import Verdict, job_findings
from fer_edge.export.target import WRITERS, check_job, job_samples

__all__ = ["TargetPlan", "plan_target"]


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """A dry run.

    Attributes:
        job: the graphs, the recipe and the shapes.
        files: what would be written.
        preflight: what is found in the graphs for the target's engine.
        refusals: why it would be refused; empty where it would not be.
    """

    job: TargetJob
    files: tuple[PlannedFile, ...]
    preflight: Verdict
    refusals: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """The export would write nothing."""
        return bool(self.refusals)

    def to_json(self) -> dict[str, Any]:
        """The plan by name."""
        job = self.job
        return {
            "target": job.name,
            "summary": job.recipe.summary,
            "bundle": job.bundle.manifest.name,
            "bundle_sha256": job.bundle.sha256,
            "variant": job.variant,
            "precision": job.computes_in,
            "passes": list(job.passes),
            "shapes": {
                part: {name: {"min": s.min, "opt": s.opt, "max": s.max} for name, s in inputs.items()}
                for part, inputs in job.shapes.items()
            },
            "compute_capabilities": list(job.recipe.compute_capabilities),
            "files": [file.to_json() for file in self.files],
            "findings": [finding.to_json() for finding in self.preflight.findings],
            "refusals": list(self.refusals),
            "refused": self.refused,
        }


def plan_target(
    bundle: Bundle, *, target: str, variant: str | None = None, settings: Iterable[str] = (), clip: bool = False
) -> TargetPlan:
    """Prepare a target's graphs, check them, and say what its writer would do on this machine.

    Args:
        bundle: an open bundle.
        target: a target's name, a recipe's path, or ``"auto"``.
        variant: a variant's name; the recipe's choice by default.
        settings: ``"key=value"`` changes to the recipe.
        clip: with the fused graph of a clip.

    Raises:
        InputError, BundleError: as `target_job`; what cannot be planned has no plan.
    """
    job = target_job(bundle, target=target, variant=variant, settings=settings, clip=clip)
    plan = WRITERS[job.recipe.kind]().plan(job)
    preflight = job_findings(job)
    refusals = list(plan.refusals)
    refusals += [
        f"{each.part} {each.node}: {each.found}; {each.cure}" for each in preflight.findings if each.severity == "error"
    ]
    try:
        check_job(job, job_samples(job) if job.passes else {})
    except FerEdgeError as error:
        refusals.append(str(error))
    return TargetPlan(job=job, files=plan.files, preflight=preflight, refusals=tuple(refusals))
