"""A target's job: the graphs after the recipe's passes, with their shapes and precision."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fer_edge.core.bundle import Bundle
from fer_edge.core.recipes import override
from fer_edge.export.backend import TargetJob
from fer_edge.export.graph_passes import bundle_graphs, part_shapes, prepare_graphs
from fer_edge.export.recipe import load_target
from fer_edge.export.selection import choose_precision, choose_target, target_variant

__all__ = ["target_job"]


def target_job(
    bundle: Bundle, *, target: str, variant: str | None = None, settings: Iterable[str] = (), clip: bool = False
) -> TargetJob:
    """A target's graphs, ready for its writer; `check_job` compares them with the bundle's own.

    Args:
        bundle: an open bundle.
        target: as `choose_target` takes it, or the path of a recipe that ends in ``.toml``.
        variant: a variant's name; the recipe's choice by default.
        settings: ``"key=value"`` changes to the recipe.
        clip: with the fused graph from a clip to its logits.

    Raises:
        InputError: no such target, a bad setting, or a graph that does not bear a pass of the recipe.
        BundleError: no such variant, or a damaged bundle.
        MissingPackageError: a pass needs a package that is not installed.
    """
    name = choose_target(target)
    recipe = override(load_target(name), settings)
    chosen = target_variant(bundle, recipe, variant)
    precision = choose_precision(bundle, recipe, chosen)
    shapes = part_shapes(bundle.manifest, recipe.shapes)
    own = bundle_graphs(bundle, chosen, clip=clip)
    prepared = prepare_graphs(own, recipe, shapes, float16=precision in ("fp16", "int8-fp16"))
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
