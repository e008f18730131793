"""Pre-flight of a bundle: which graphs each TensorRT accepts, found without TensorRT and without a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, require
from fer_edge.core.json import encode
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.export.graph_passes import Part, Shaped, bundle_graphs, part_shapes
from fer_edge.export.job import TargetJob
from fer_edge.export.recipe import ShapeRange, Shapes

if TYPE_CHECKING:
    from fer_edge.graph.preflight.finding import Finding

__all__ = ["ROWS", "Verdict", "check_bundle", "job_findings", "require_accepted"]

ROWS: Final = (*FLAVOURS, "dla")
"""Check targets besides the recipes: every row of the TensorRT table, and the DLA."""

_SEVERAL: Final = Shapes(frames=ShapeRange(min=1, opt=1, max=16), windows=ShapeRange(min=1, opt=1, max=16))
_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One variant for one target.

    Attributes:
        target: a row of `ROWS`, or a recipe's name.
        variant: the bundle's variant.
        findings: errors first.
    """

    target: str
    variant: str
    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        """Whether an engine accepts the graphs and computes them right."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, and the verdict."""
        return {"accepted": self.accepted, **encode(self)}


def check_bundle(bundle: Bundle, *, rows: Iterable[str] = ROWS, variants: Sequence[str] = ()) -> tuple[Verdict, ...]:
    """Check every variant for every row, with the graphs as stored in the bundle.

    Args:
        rows: of `ROWS`.
        variants: their names; all by default.

    Raises:
        InputError: an unknown row.
        BundleError: no such variant, or a damaged graph.
        MissingPackageError: onnx is not installed.
    """
    names = tuple(variants) or tuple(variant.name for variant in bundle.manifest.variants)
    several, single = (part_shapes(bundle.manifest, each) for each in (_SEVERAL, Shapes()))
    verdicts = []
    for name in names:
        graphs = bundle_graphs(bundle, name, clip=False)
        for row in rows:
            # A DLA builds only one size.
            findings = _findings(graphs, single if row == "dla" else several, row=row)
            verdicts.append(Verdict(target=row, variant=name, findings=findings))
    return tuple(verdicts)


def job_findings(job: TargetJob) -> Verdict:
    """Check a target's graphs after its passes, with its shapes; without findings where TensorRT is not involved.

    Raises:
        MissingPackageError: onnx is not installed.
    """
    recipe = job.recipe
    findings: tuple[Finding, ...] = ()
    if recipe.flavour is not None:
        findings = _findings(
            job.graphs,
            job.shapes,
            row=recipe.flavour,
            compute_capabilities=recipe.compute_capabilities,
            on_dla=recipe.dla_core is not None,
            max_opset=recipe.opset,
        )
    return Verdict(target=job.name, variant=job.variant, findings=findings)


def require_accepted(job: TargetJob, verdict: Verdict) -> None:
    """Refuse a job whose pre-flight found errors.

    Raises:
        GateError: naming the first few.
    """
    if verdict.accepted:
        return
    errors = [finding for finding in verdict.findings if finding.severity == "error"]
    named = "; ".join(f"{each.part} {each.node}: {each.found} ({each.cure})" for each in errors[:_SHOWN])
    more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    command = f"fer-edge check {job.bundle.manifest.name} --target {job.name} --variant {job.variant} --verbose"
    raise GateError(
        f"the target {job.name!r} would refuse {job.variant}: {named}{more}. `{command}` shows all; nothing was written"
    )


def _findings(
    graphs: Mapping[Part, bytes],
    shapes: Shaped,
    *,
    row: str,
    compute_capabilities: tuple[int, ...] = (),
    on_dla: bool = False,
    max_opset: int | None = None,
) -> tuple[Finding, ...]:
    require("onnx", needed_by="pre-flight", extra="tensorrt")
    from fer_edge.graph.graph import Graph
    from fer_edge.graph.preflight.rules import check_graph

    found: list[Finding] = []
    for part, data in graphs.items():
        profile = {name: (each.min, each.opt, each.max) for name, each in shapes[part].items()}
        found += check_graph(
            Graph.read(data, name=f"the {part}"),
            target=row,
            part=part,
            profile=profile,
            compute_capabilities=compute_capabilities,
            on_dla=on_dla,
            max_opset=max_opset,
        )
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))
