"""Others' models: found in the repository, read with every field, refused with the field's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_edge.bench import peers
from fer_edge.bench.peers import find_peers, read_peers
from fer_edge.core.errors import InputError, RecipeError

HEAD = 'measured = "elsewhere"\ndate = ""\ndata = ""\nmachine = ""\nnote = ""\nreference_cnn_ms_min = 1.9\n'
REPOSITORY = Path(__file__).parents[2]


def test_the_repositorys_table_is_found_and_read() -> None:
    if not (REPOSITORY / "bench").is_dir():
        pytest.skip("bench/ is not part of the source distribution")
    table = read_peers(find_peers(REPOSITORY / "tests"))
    by_name = {peer.name: peer for peer in table.peer}
    mini = by_name["mini-XCEPTION"]
    assert (mini.x, mini.top1("choose"), mini.top1("report")) == (0.16, pytest.approx(0.6553), pytest.approx(0.6551))
    assert by_name["facemood"].top1("report") is None
    assert table.measured == "elsewhere"


def test_outside_the_repository_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "__file__", str(tmp_path / "site-packages" / "fer_edge" / "bench" / "peers.py"))
    with pytest.raises(InputError, match="--peers FILE"):
        find_peers(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("measured = ", "not valid TOML"),
        ('measured = "here"', "missing|elsewhere"),
        (f'{HEAD}[[peer]]\nname = "a"\nsorce = "b"', "did you mean 'source'"),
        (f'{HEAD}[[peer]]\nname = "a"\nsource = "b"\nparameters = 1\ninput = [1, 1, 1]', "x: missing"),
    ],
)
def test_what_is_no_table_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "peers.toml").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_peers(tmp_path / "peers.toml")
    assert "peers.toml" in str(caught.value)
    with pytest.raises(RecipeError, match="cannot read"):
        read_peers(tmp_path / "nowhere.toml")
