"""A target's job: the recipe, and the bundle's graphs after the recipe's passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fer_edge.core.bundle import Bundle
from fer_edge.core.recipe_overrides import override
from fer_edge.core.types import Array
from fer_edge.export.graph_passes import InputShapes, Part, bundle_graphs, part_shapes, prepare_graphs
from fer_edge.export.recipe import Precision, TargetRecipe, load_target
from fer_edge.export.selection import choose_precision, choose_target, target_variant

__all__ = ["InputShapes", "Part", "PlannedFile", "Run", "TargetJob", "target_job"]

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""One run of one graph: named arrays in, named arrays out."""


@dataclass(frozen=True, kw_only=True)
class TargetJob:
    """Graphs ready for an engine's backend, and the recipe that made them so.

    Attributes:
        name: the target's name.
        recipe: as read and overridden.
        bundle: the source of the graphs.
        variant: the bundle's variant.
        precision: the recipe's, except for a variant given by name that is quantized where the recipe is not, or the
            other way round.
        graphs: ONNX bytes by part, after every pass of the recipe. For strongly typed builders the graphs hold FP16 as
            casts; other builders get float graphs and set flags from `precision`.
        shapes: for each part, the shapes of each input, by name.
        keep_float32: for each part, the nodes whose range needs FP32; for builders with precision flags.
        passes: the passes applied, a few words each; empty where the graphs are the bundle's own.
    """

    name: str
    recipe: TargetRecipe
    bundle: Bundle
    variant: str
    precision: Precision
    graphs: Mapping[Part, bytes]
    shapes: Mapping[Part, Mapping[str, InputShapes]]
    keep_float32: Mapping[Part, tuple[str, ...]] = field(default_factory=dict)
    passes: tuple[str, ...] = ()

    @property
    def computes_in(self) -> str:
        """The precision in one word; the variant's own where the recipe leaves it to the graphs."""
        return self.bundle.variant(self.variant).precision if self.precision == "variant" else self.precision

    @property
    def float16(self) -> bool:
        """The float layers compute in FP16 where range allows."""
        return self.precision.endswith("fp16")

    @property
    def quantized(self) -> bool:
        """The graphs hold Q/DQ pairs."""
        return self.computes_in.startswith("int8")


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file that a backend would write.

    Attributes:
        name: the file's name, or a pattern where only the build determines it.
        part: the source graph; empty for scripts and configurations.
        precision: of its computation; empty where it computes nothing.
        remark: for example the GPU that it is for.
    """

    name: str
    part: Part | Literal[""] = ""
    precision: str = ""
    remark: str = ""


def target_job(
    bundle: Bundle, *, target: str, variant: str | None = None, settings: Iterable[str] = (), clip: bool = False
) -> TargetJob:
    """Prepare a target's graphs.

    Args:
        target: a shipped target's name, ``"auto"``, ``"cpu"``, or the path of a recipe that ends in ``.toml``.
        settings: ``"key=value"`` changes to the recipe.
        clip: also prepare the fused graph from a clip to its logits.

    Raises:
        RecipeError: no such target, or a bad setting.
        InputError: a graph that does not allow a pass of the recipe.
        BundleError: no such variant, or a damaged bundle.
        MissingPackageError: a pass needs a package that is not installed.
    """
    name = choose_target(target)
    recipe = override(load_target(name), settings)
    chosen = target_variant(bundle, recipe, variant)
    precision = choose_precision(bundle, recipe, chosen)
    shapes = part_shapes(bundle.manifest, recipe.shapes)
    own = bundle_graphs(bundle, chosen, clip=clip, crowd=recipe.kind != "triton")
    prepared = prepare_graphs(own, recipe, shapes, float16=precision.endswith("fp16"))
    return TargetJob(
        name=Path(name).stem if name.endswith(".toml") else name,
        recipe=recipe,
        bundle=bundle,
        variant=chosen,
        precision=precision,
        graphs=prepared.graphs,
        shapes={part: shapes[part] for part in own},
        keep_float32=prepared.keep_float32,
        passes=prepared.passes,
    )
