"""The house rules that a machine can hold: who imports whom, what stays light, what every module looks like."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import fer_edge
from fer_edge.cli import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(fer_edge.__file__).parent
PROJECT = Path(__file__).parent.parent
MODULES = {
    ".".join(("fer_edge", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# The rooms that each room may import, beside itself. `fer_edge/` itself holds two modules: the lazy public names, and
# `python -m fer_edge`.
MAY_IMPORT = {
    "fer_edge": {"core", "runtime"},
    "__main__": {"cli"},
    "_pyinstaller": set(),
    "core": set(),
    "data": {"core"},
    "graph": {"core"},
    "runtime": {"core"},
    "model": {"core"},
    "train": {"core", "data", "model"},
    "calibrate": {"core", "data", "graph", "runtime"},
    "bench": {"core", "data", "runtime"},
    "export": {"core", "data", "graph", "runtime"},
    "demo": {"core", "data", "runtime", "bench", "export"},
    "paper": {"core", "data", "model", "train", "bench"},
    "sweep": {"core", "data", "graph", "runtime", "model", "train", "calibrate", "bench", "export"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT) - {"__main__"}
# `gpu-check` tries every way onto a GPU, so it imports the rooms that have one.
ALSO_MAY_IMPORT = {
    "fer_edge.bench.gpu_check": {"export", "model"},
}
# 5,000 until the live engine came: its thread, queues, health, deadline policy and frame layouts, and the checks of
# times, boxes and engines that keep it running.
VEHICLE_LINES = 6000
# The one module of export that reads a training run also imports what made it.
RUN_READERS = {"torch", "model", "train"}

ENGINES = {"onnxruntime", "openvino", "ai_edge_litert", "tensorrt", "tensorrt_rtx", "pycuda", "cuda"}
TRAINERS = {"torch", "torch_pruning", "safetensors", "sklearn"}
OTHERS = {"PyInstaller", "nncf", "onnx", "onnxslim", "onnxscript", "matplotlib", "pyarrow", "scipy", "pandas"}
HEAVY = ENGINES | TRAINERS | OTHERS
MUST_NOT_IMPORT = {
    "core": ENGINES | TRAINERS | {"nncf", "onnx"},
    "data": ENGINES | TRAINERS | {"nncf", "onnx"},
    "graph": ENGINES | TRAINERS | {"nncf"},
    "runtime": HEAVY - ENGINES,
    "model": ENGINES | {"nncf"},
    "train": ENGINES,
    "calibrate": TRAINERS,
    "bench": TRAINERS | {"nncf"},
    "demo": TRAINERS | {"nncf", "onnx"},
    "paper": ENGINES | {"nncf", "onnx"},
    "sweep": ENGINES | {"nncf", "onnx"},
    "export": TRAINERS - RUN_READERS - {"safetensors"} | {"nncf"},
    "cli": set(),
}
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless", "onnxruntime": {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"},
    "sklearn": "scikit-learn", "torch_pruning": "torch-pruning", "tensorrt_rtx": "tensorrt-rtx", "cuda": "cuda-python",
    "ai_edge_litert": "ai-edge-litert",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import of a module: at its top, inside a function, or for type checkers alone."""

    target: str
    line: int
    place: str


def room_of(module: str) -> str:
    """The room of a module; one that is in no known room gets its own name, which no rule allows."""
    return module.split(".")[1] if "." in module else module


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_imports(tree_of(module).body, module, "top"))


def _imports(nodes: list[ast.stmt], module: str, place: str) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(target=alias.name, line=node.lineno, place=place)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively; imports are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in MODULES else str(node.module)
                yield Import(target=target, line=node.lineno, place=place)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports(node.body, module, "typing")
        else:
            inside = "function" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else place
            yield from _imports(
                [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)], module, inside
            )
            for handler in getattr(node, "handlers", []):
                yield from _imports(handler.body, module, inside)
            if not hasattr(node, "body"):
                yield from _imported_by_call(node, inside)


def _imported_by_call(node: ast.stmt, place: str) -> Iterator[Import]:
    """`require("torch", ...)` and `importlib.import_module("torch")`."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name in ("require", "import_module") and isinstance(call.args[0].value, str):
                yield Import(target=call.args[0].value, line=call.lineno, place=place)


def _said(module: str, found: Import) -> str:
    return f"{MODULES[module].relative_to(PACKAGE.parent)}:{found.line} imports {found.target}"


class TestWhoImportsWhom:
    def test_every_module_is_in_a_known_room(self) -> None:
        assert {room_of(module) for module in MODULES} == set(MAY_IMPORT)

    @pytest.mark.parametrize("room", list(MAY_IMPORT))
    def test_rooms(self, room: str) -> None:
        wrong = []
        for module in MODULES:
            if room_of(module) != room:
                continue
            allowed = ALSO_MAY_IMPORT.get(module, set()) | MAY_IMPORT[room] | {room, "fer_edge"}
            if module in run_readers():
                allowed |= RUN_READERS
            for found in imports_of(module):
                ours = found.target.split(".")[0] == "fer_edge"
                if ours and found.target in MODULES and room_of(found.target) not in allowed:
                    wrong.append(_said(module, found))
        assert wrong == []

    @pytest.mark.parametrize("room", list(MUST_NOT_IMPORT))
    def test_packages(self, room: str) -> None:
        wrong = [
            _said(module, found)
            for module in MODULES
            if room_of(module) == room and module not in ALSO_MAY_IMPORT
            for found in imports_of(module)
            if found.target.split(".")[0] in MUST_NOT_IMPORT[room]
        ]
        assert wrong == []

    def test_no_circles(self) -> None:
        """No two modules import each other, directly or through others, not even inside a function."""
        targets = {
            module: {found.target for found in imports_of(module) if found.target in MODULES} - {module}
            for module in MODULES
        }
        done: set[str] = set()

        def circle_from(module: str, path: tuple[str, ...]) -> tuple[str, ...]:
            if module in path:
                return (*path[path.index(module) :], module)
            if module in done:
                return ()
            for target in sorted(targets[module]):
                if found := circle_from(target, (*path, module)):
                    return found
            done.add(module)
            return ()

        assert [circle for module in MODULES if (circle := circle_from(module, ()))] == []

    def test_the_vehicles_code_is_small_and_its_own(self) -> None:
        """`fer_edge.runtime` and all that it imports: under 6,000 lines of code, nothing of `data`, `train`, `bench`.

        Lines of code are those that hold code: neither blank lines, comments nor docstrings.
        """
        waiting = [module for module in MODULES if room_of(module) == "runtime"]
        reached: set[str] = set()
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                imported = {found.target for found in imports_of(module) if found.place != "typing"}
                waiting += imported & MODULES.keys()
        assert {room_of(module) for module in reached} == {"core", "runtime"}
        lines = {module: _lines_of_code(module) for module in reached}
        assert sum(lines.values()) < VEHICLE_LINES, sorted(lines.items(), key=lambda item: -item[1])[:12]

    def test_one_folder_of_export_reaches_for_torch(self) -> None:
        assert {module.rpartition(".")[0] for module in run_readers()} == {"fer_edge.export.from_torch"}

    def test_torch_stands_at_the_top_of_what_is_made_of_it_only(self) -> None:
        wrong = [
            _said(module, found)
            for module in MODULES
            if room_of(module) not in {"model", "train", "paper"} and module not in run_readers()
            for found in imports_of(module)
            if found.place == "top" and found.target.split(".")[0] == "torch"
        ]
        assert wrong == []

    def test_nothing_reaches_out(self) -> None:
        """No download, no pickle: weights are safetensors, data is parsed. The one socket is the service manager's."""
        banned = {
            "socket",
            "urllib.request",
            "http.client",
            "ftplib",
            "requests",
            "httpx",
            "pickle",
            "shelve",
            "marshal",
        }
        wrong = [_said(m, found) for m in MODULES for found in imports_of(m) if found.target in banned]
        assert wrong == [said for said in wrong if said.startswith("fer_edge/cli/systemd.py:") and "socket" in said]

    def test_commands_import_their_library_inside_functions(self) -> None:
        light = {f"fer_edge.core.{name}" for name in ("errors", "labels", "tables")} | {"fer_edge"}
        wrong = [
            _said(module, found)
            for module in MODULES
            if room_of(module) == "cli"
            for found in imports_of(module)
            if found.place == "top" and found.target.split(".")[0] not in {*sys.stdlib_module_names, "click", "rich"}
            if found.target not in light and room_of(found.target) != "cli"
        ]
        assert wrong == []


def _lines_of_code(module: str) -> int:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    text, docstrings = MODULES[module].read_text("utf-8"), set[int]()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def run_readers() -> list[str]:
    return [
        module
        for module in MODULES
        if room_of(module) == "export"
        and any({found.target.split(".")[0], room_of(found.target)} & RUN_READERS for found in imports_of(module))
    ]


class TestEveryModule:
    @pytest.mark.parametrize("module", [module for module in MODULES if not module.endswith("__main__")])
    def test_imports_and_has_the_names_it_lists(self, module: str) -> None:
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            root = (error.name or "").split(".")[0]
            if root not in HEAVY or importlib.util.find_spec(root):
                raise
            pytest.skip(f"needs the package {root}")
        names = getattr(loaded, "__all__", [])
        assert len(names) == len(set(names))
        assert [name for name in names if not hasattr(loaded, name)] == []

    @pytest.mark.parametrize("module", list(MODULES))
    def test_looks_like_the_others(self, module: str) -> None:
        path, tree = MODULES[module], tree_of(module)
        text = path.read_text("utf-8")
        assert text.count("\n") <= 420, "split it: about 400 lines are the limit"
        assert ast.get_docstring(tree), "a docstring says what the module is for"
        assert "from __future__ import annotations" in text or len(tree.body) == 1
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert path.stem not in HEAVY | {"numpy", "cv2", "click", "rich"}, "named after a dependency"
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not functions & (MAY_IMPORT.keys() | {"data"}), "a function named like a room hides it"

    def test_a_missing_package_is_the_only_reason_not_to_import(self) -> None:
        """In an environment with none of the heavy packages, every module imports or says which one it lacks."""
        modules = [module for module in MODULES if not module.endswith("__main__")]
        outcome = json.loads(_run_blocked(_IMPORT_EACH, HEAVY, json.dumps(modules)))
        assert outcome == {}


class TestEveryRequirement:
    def test_the_extra_that_an_error_names_brings_the_package(self) -> None:
        extras = _extras()
        wrong = []
        for module in MODULES:
            for call in ast.walk(tree_of(module)):
                named = _required(call)
                if named is None:
                    continue
                package, extra = named
                known = DISTRIBUTIONS.get(package, package)
                distribution = known if isinstance(known, str) else known.get(extra, package)
                if distribution not in extras.get(extra, ()):
                    wrong.append(f"{module}: the extra {extra!r} does not bring {distribution}")
        assert wrong == []

    def test_one_onnxruntime_at_a_time(self) -> None:
        for names in _extras().values():
            assert not {"onnxruntime", "onnxruntime-gpu"} <= names

    def test_jetpack_keeps_its_own(self) -> None:
        kept = {"opencv-python", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "tensorrt", "numpy"}
        assert not _extras()["jetson"] & kept


def _required(call: ast.AST) -> tuple[str, str] | None:
    """The package and the extra of a `require("package", ..., extra="extra")`."""
    if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "require" and call.args):
        return None
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    if not (isinstance(call.args[0], ast.Constant) and isinstance(extra, ast.Constant)):
        return None
    return str(call.args[0].value).split(".")[0], str(extra.value)


@cache
def _extras() -> dict[str, set[str]]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    return {
        extra: {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]
        for extra, requirements in project["optional-dependencies"].items()
    }


class TestLight:
    def test_the_runtime_loads_numpy_and_opencv_and_nothing_else(self) -> None:
        loaded = json.loads(_run_blocked("import fer_edge.runtime", {"torch", "nncf", "onnx"}))
        assert set(loaded) <= {"fer_edge", "numpy", "cv2"}

    @pytest.mark.parametrize("room", [room for room in ("bench", "data", "export") if f"fer_edge.{room}" in MODULES])
    def test_rooms_that_run_at_the_edge_open_without_an_engine(self, room: str) -> None:
        loaded = json.loads(_run_blocked(f"import fer_edge.{room}", HEAVY))
        assert set(loaded) <= {"fer_edge", "numpy", "cv2"}

    @pytest.mark.parametrize("code", ["import fer_edge", "from fer_edge.cli import main; main(['--help'])"])
    def test_the_door_loads_next_to_nothing(self, code: str) -> None:
        loaded = json.loads(_run_blocked(code, HEAVY | {"numpy", "cv2"}))
        assert set(loaded) <= {"fer_edge", "click"}

    @pytest.mark.parametrize("name", [name for name in COMMANDS if f"fer_edge.cli.{name.replace('-', '_')}" in MODULES])
    def test_every_help_is_light(self, name: str) -> None:
        code = f"from fer_edge.cli import main; main([{name!r}, '--help'])"
        loaded = json.loads(_run_blocked(code, HEAVY | {"numpy", "cv2"}))
        assert set(loaded) <= {"fer_edge", "click", "rich", "pygments", "markdown_it", "mdurl", "typing_extensions"}


class TestWorkbench:
    @pytest.mark.parametrize("room", ["export", "calibrate", "runtime", "bench"])
    def test_holds_nothing_importable_and_says_where_its_code_is(self, room: str) -> None:
        folder = PROJECT / room
        if not folder.exists():
            pytest.skip(f"there is no folder {room}/")
        assert not (folder / "__init__.py").exists()
        assert (folder / "README.md").read_text("utf-8").splitlines()[0] == f"code: `fer_edge/{room}/`"


# Refuses the packages named in the first argument, runs the rest, and prints the names of the foreign packages that
# were loaded, as JSON, on the last line.
_BLOCKED = """
import contextlib, importlib.abc, io, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

REFUSED = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Refuse())
before = set(sys.modules)
shown = io.StringIO()
with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
    exec(sys.argv[2], {"__name__": "blocked"})
loaded = {n.partition(".")[0] for n in set(sys.modules) - before if sys.modules[n] is not None}
report = sorted(n for n in loaded - set(sys.stdlib_module_names) if getattr(sys.modules.get(n), "__file__", None))
print(shown.getvalue().splitlines()[-1] if sys.argv[2].startswith("# prints") else json.dumps(report))
"""

_IMPORT_EACH = """# prints
import importlib, json, sys
wrong = {}
for module in json.loads(sys.argv[3]):
    try:
        importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in REFUSED_HERE:
            wrong[module] = repr(error)
    except Exception as error:
        if type(error).__name__ != "MissingPackageError":
            wrong[module] = repr(error)
print(json.dumps(wrong))
"""


def _run_blocked(code: str, refused: set[str], *arguments: str) -> str:
    """The last line that a fresh interpreter prints which runs `code` and cannot import the `refused` packages."""
    code = code.replace("REFUSED_HERE", repr(refused))
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKED, json.dumps(sorted(refused)), code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
