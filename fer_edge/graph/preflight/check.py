"""All rules on one graph for one target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from fer_edge.core.errors import InputError
from fer_edge.core.tensorrt_flavours import FLAVOURS, TensorRtFlavour
from fer_edge.graph.graph import Graph
from fer_edge.graph.preflight import dla, operators, quantizers, recurrent, shapes
from fer_edge.graph.preflight.finding import Checked, Fault, Finding, Profile

__all__ = ["CHECK_TARGETS", "DLA_RULES", "RULES", "check_graph"]

Rule = Callable[[Checked], Iterator[Fault]]

RULES: Final[Mapping[str, Rule]] = {
    "opset": operators.opset,
    "operator": operators.supported,
    "operator-form": operators.restrictions,
    "quantizer-signed": quantizers.signedness,
    "quantizer-zero-point": quantizers.zero_points,
    "quantizer-scale": quantizers.scales,
    "quantizer-pair": quantizers.pairs,
    "activation-per-tensor": quantizers.activation_scales,
    "weight-axis": quantizers.weight_axes,
    "profile": shapes.profiles,
    "uint8": shapes.uint8_border,
    "int64": shapes.int64_border,
    "float64": shapes.doubles,
    "recurrent-activations": recurrent.activations,
    "recurrent-form": recurrent.attributes,
    "recurrent-states": recurrent.initial_states,
    "recurrent-type": recurrent.types,
    "fp32-product": recurrent.products,
}
"""Rule by name, for every TensorRT."""

DLA_RULES: Final[Mapping[str, Rule]] = {
    "dla-recurrent": dla.recurrent,
    "dla-quantizer": dla.quantizers,
    "dla-fixed-shapes": dla.fixed_shapes,
    "dla-operator": dla.operators,
}
"""Rules that a deep learning accelerator adds."""

_DLA_FLAVOUR: Final = "10.3"  # the newest of the table that serves one
CHECK_TARGETS: Final = (*FLAVOURS, "dla")
"""What `check_graph` checks for: the rows of the TensorRT table, and ``"dla"`` (Orin's, under TensorRT 10.3)."""


def check_graph(
    graph: Graph,
    *,
    target: str,
    part: str = "",
    profile: Profile | None = None,
    compute_capabilities: tuple[int, ...] = (),
    on_dla: bool = False,
    max_opset: int | None = None,
) -> tuple[Finding, ...]:
    """Everything that is wrong with a graph for a target; empty where nothing is.

    Args:
        graph: not changed.
        target: one of `CHECK_TARGETS`.
        part: what findings call the graph.
        profile: the shapes that an engine would be built for.
        compute_capabilities: the GPUs that it would be built for, where that is done ahead of time.
        on_dla: layers are to run on a deep learning accelerator; ``target="dla"`` implies it.
        max_opset: newest opset that is wanted, where that is older than the flavour's limit.

    Raises:
        InputError: an unknown target.
    """
    if target not in CHECK_TARGETS:
        raise InputError(f"check target {target!r} is unknown; expected one of {', '.join(CHECK_TARGETS)}")
    accelerator = on_dla or target == "dla"
    row: TensorRtFlavour = FLAVOURS[_DLA_FLAVOUR if target == "dla" else target]
    checked = Checked(
        graph=graph, flavour=row, profile=profile, compute_capabilities=compute_capabilities, max_opset=max_opset
    )
    rules = {**RULES, **(DLA_RULES if accelerator else {})}
    return tuple(
        Finding(
            rule=name,
            severity=fault.severity,
            target=target,
            part=part,
            node=fault.node,
            found=fault.found,
            cure=fault.cure,
        )
        for name, rule in rules.items()
        for fault in rule(checked)
    )
