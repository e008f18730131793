"""The seam between a target and the engine that it is written for: what a writer gets, says and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fer_edge.core.bundle import Bundle
from fer_edge.core.types import Array, Progress
from fer_edge.export.parity.outputs import Parity
from fer_edge.export.recipe import Precision, TargetRecipe

__all__ = [
    "InputShapes",
    "Part",
    "PlannedFile",
    "Run",
    "TargetJob",
    "TargetWriter",
    "WriterPlan",
    "WrittenTarget",
]

Part = Literal["encoder", "head", "clip"]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Named arrays in, named arrays out: one run of one graph."""


@dataclass(frozen=True, kw_only=True)
class InputShapes:
    """One input's shapes, as an optimisation profile wants them; all three alike where nothing is dynamic."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @property
    def fixed(self) -> bool:
        """There is one shape."""
        return self.min == self.max

    def __str__(self) -> str:
        opt = "x".join(map(str, self.opt))
        return opt if self.fixed else f"{'x'.join(map(str, self.min))}..{opt}..{'x'.join(map(str, self.max))}"


@dataclass(frozen=True, kw_only=True)
class TargetJob:
    """Everything that a writer needs: graphs that are ready for the engine, and the recipe that made them so.

    Attributes:
        name: the target's name.
        recipe: as it was read and overridden.
        bundle: where the graphs come from.
        variant: the bundle's variant that was taken.
        precision: what to compute in; the recipe's, but for a variant asked for by name that is quantized where the
            recipe is not, or the other way round.
        graphs: ONNX bytes of the part's graph after every pass that the recipe asks for, checked against the bundle's
            own. For strongly typed builds FP16 stands in the graph, as casts; a builder with precision flags and no
            strong typing gets float graphs and sets its flags from `precision`.
        shapes: for each part, the shapes of each input, by name.
        keep_float32: for each part, the names of nodes whose range wants FP32; for builders with precision flags.
        passes: what was done to the bundle's graphs, in a few words each; empty where they are taken as they are.
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
        """The precision in one word, the variant's own where the recipe leaves it to the graphs."""
        return self.bundle.variant(self.variant).precision if self.precision == "variant" else self.precision

    @property
    def float16(self) -> bool:
        """The float parts compute in FP16 where range allows."""
        return self.precision in ("fp16", "int8-fp16")

    @property
    def quantized(self) -> bool:
        """The graphs hold Q/DQ pairs."""
        return self.precision in ("int8", "int8-fp16")

    def sparse(self, part: Part) -> bool:
        """A part's weights are 2:4 sparse, by the bundle's word, and the recipe lets the builder make use of it."""
        return self.recipe.sparse_weights and part != "head" and "sparsity" in self.bundle.manifest.model


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file that a writer would write.

    Attributes:
        name: the file's name, or a pattern where only building gives it.
        part: the graph that it is made from; empty for what belongs to no one graph (a script, a configuration).
        precision: what it computes in; empty where it computes nothing.
        remark: for example the GPU that it is for.
    """

    name: str
    part: Part | Literal[""] = ""
    precision: str = ""
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class WriterPlan:
    """What `TargetWriter.write` would do on this machine.

    Attributes:
        files: what it would write.
        refusals: why it would refuse, one sentence each, with the cure; empty where it would not.
    """

    files: tuple[PlannedFile, ...]
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WrittenTarget:
    """What a writer wrote.

    Attributes:
        files: their paths, in the folder it was given.
        engine: package and version of what runs them: ``"onnxruntime 1.32.0"``.
        open: opens the file of one part, as just written, to be compared with the bundle's graph; None where this
            machine cannot run it.
        not_run: why `open` is None, in a few words: ``"no CUDA GPU here"``.
        parity: of files that hold other graphs than the parts; the writer has compared them itself, and refused where
            they differ.
    """

    files: tuple[Path, ...]
    engine: str
    open: Callable[[Part], AbstractContextManager[Run]] | None = None
    not_run: str = ""
    parity: Parity | None = None


@dataclass(frozen=True, kw_only=True)
class TargetWriter:
    """How one kind of engine's files are written. `fer_edge.export.target.WRITERS` maps a recipe's kind to one.

    Attributes:
        plan: what `write` would do here, without doing it: no file is written and nothing is built.
        write: writes the files of every part of ``job.graphs`` straight into the folder, which is a scratch folder that
            becomes the target's when everything has gone well, and is removed when anything raises.
            Raises `SessionError` where the engine refuses a graph, `MissingPackageError` where its package is missing.
    """

    plan: Callable[[TargetJob], WriterPlan]
    write: Callable[[TargetJob, Path, Progress], WrittenTarget]
