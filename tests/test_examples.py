"""The public names: both facades hold the same ones, every class has an `Example:`, and every example runs."""

from __future__ import annotations

import doctest
import inspect
import types
from typing import Any

import pytest

import fer_edge
import fer_edge.runtime

FACADES = (fer_edge, fer_edge.runtime)
NAMES = sorted({(facade.__name__, name) for facade in FACADES for name in facade.__all__ if name != "__version__"})
OBJECTS: dict[str, Any] = {name: getattr(fer_edge, name) for _, name in NAMES}
PUBLIC = {
    name: value
    for name, value in OBJECTS.items()
    if isinstance(value, type | types.FunctionType) and not isinstance(value, types.GenericAlias)
}
EXAMPLES = {
    f"{name}.{test.name}": test
    for name, value in PUBLIC.items()
    for test in doctest.DocTestFinder(exclude_empty=True).find(value, name, globs={})
    if test.examples
}


def test_the_package_offers_what_the_runtime_offers() -> None:
    assert set(fer_edge.__all__) == {*fer_edge.runtime.__all__, "Bundle", "__version__"}
    assert {*fer_edge.__all__} <= {*dir(fer_edge)}
    for name in fer_edge.runtime.__all__:
        assert getattr(fer_edge, name) is getattr(fer_edge.runtime, name)


@pytest.mark.parametrize("name", sorted(name for name, value in PUBLIC.items() if inspect.isclass(value)))
def test_every_public_class_has_an_example(name: str) -> None:
    if name != "FerEdgeError" and issubclass(PUBLIC[name], fer_edge.FerEdgeError):
        pytest.skip("an error is shown by the example of FerEdgeError")
    assert "Example:" in (PUBLIC[name].__doc__ or ""), f"{name} has no Example: in its docstring"
    assert any(key.startswith(f"{name}.") for key in EXAMPLES)


@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_the_example_runs(example: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(EXAMPLES[example], out=shown.append)
    assert result.failed == 0, "".join(shown)
    assert result.attempted > 0
    assert not list(tmp_path.iterdir()), "an example writes no file"
