"""Cards of graphs: written by the exporter, read back without the package onnx, refused where they do not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from tiny import tiny_crowd_bundle, tiny_encoder

from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.errors import InputError
from fer_edge.core.graph_card import graph_card, read_card, with_card, with_cards


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    plain = tiny_crowd_bundle(tmp_path / "plain")
    graphs = {file.sha256: plain.read_graph(file) for file in plain.manifest.graph_files.values()}
    return create_bundle(tmp_path / "carded", *with_cards(plain.manifest, graphs))


def test_every_graph_of_a_bundle_says_what_it_is(bundle: Bundle) -> None:
    variant = bundle.variant("fp32")
    for part, labels in (("encoder", None), ("head", 7), ("crowd", 8)):
        data = bundle.graph_bytes("fp32", part)  # type: ignore[arg-type]
        onnx.checker.check_model(data, full_check=True)
        card = read_card(data, name=part)
        assert card["part"] == part
        assert (len(card["labels"]) if "labels" in card else None) == labels
        assert card["preprocess"]["size"] == bundle.manifest.preprocess.size
        assert (card["bundle"], card["licence"]) == ("tiny", "test weights, random")
        said = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
        assert said["fer_edge.bundle"] == "tiny"
    assert variant.crowd is not None


def test_a_card_replaces_the_earlier_one_and_keeps_what_others_wrote(bundle: Bundle) -> None:
    model = tiny_encoder()
    model.metadata_props.add(key="author", value="somebody")
    card = graph_card(bundle.manifest, bundle.variant("fp32"), "encoder")
    once = with_card(model.SerializeToString(), {**card, "bundle": "old"})
    again = with_card(once, card)
    assert again == with_card(again, card)
    read = onnx.load_from_string(again)
    assert [entry.value for entry in read.metadata_props if entry.key in ("author", "fer_edge.bundle")] == [
        "somebody", "tiny",
    ]  # fmt: skip
    assert read.graph == model.graph


def test_graphs_that_are_not_given_stay_as_they_are(bundle: Bundle) -> None:
    manifest, graphs = with_cards(dataclasses.replace(bundle.manifest, name="other"), {})
    assert manifest.variants == bundle.manifest.variants
    assert graphs == {}


class TestRefusals:
    def test_other_weights_than_the_cards(self, bundle: Bundle) -> None:
        model = onnx.load_from_string(bundle.graph_bytes("fp32", "encoder"))
        changed = numpy_helper.to_array(model.graph.initializer[3]).copy()
        changed += np.float32(1)
        model.graph.initializer[3].CopyFrom(numpy_helper.from_array(changed, model.graph.initializer[3].name))
        with pytest.raises(InputError, match=r"got weights of the hash .*, expected those of its card"):
            read_card(model.SerializeToString(), name="g.onnx")

    def test_no_card(self) -> None:
        with pytest.raises(InputError, match=r"g.onnx: got no card, expected entries fer_edge\.\*"):
            read_card(tiny_encoder().SerializeToString(), name="g.onnx")

    @pytest.mark.parametrize("content", [b"", b"no graph", b"TFL3TFL3TFL3"])
    @pytest.mark.parametrize("ending", [".onnx", ".tflite"])
    def test_files_of_other_kinds(self, content: bytes, ending: str, tmp_path: Path) -> None:
        if ending == ".tflite":
            pytest.importorskip("ai_edge_litert")
        path = tmp_path / f"graph{ending}"
        path.write_bytes(content)
        done = CliRunner().invoke(main, ["card", str(path)])
        assert done.exit_code == 1
        assert "Traceback" not in done.output
        assert f"graph{ending}:" in done.output.replace("\n", "")


def test_the_command_reads_a_card_back(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(bundle.graph_bytes("fp32", "encoder"))
    done = CliRunner().invoke(main, ["card", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["preprocess"]["size"] == bundle.manifest.preprocess.size
