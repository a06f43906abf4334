"""What a bundle holds, whether it answers rightly here, and where two of them differ."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lensmith
from lensmith.bundle.format import MANIFEST, Abstention, Bundle, EngineRecord, seal
from lensmith.errors import BundleError
from lensmith.inference.engine import FakeEngine, open_graph
from lensmith.inference.inspection import ManifestChange

Remake = Callable[..., Bundle]


@pytest.fixture
def several(colour_bundle: Bundle, remake: Remake) -> Bundle:
    """A bundle with an engine more that runs here, two that do not, and one that was tried in vain."""
    (first,) = colour_bundle.manifest.engines
    others = [
        {"engine": "openvino", "chosen": False, "why": "slower"},
        {"engine": "openvino", "precision": "bf16", "needs": ("NO-SUCH-SET",), "chosen": False},
        {"engine": "from-the-future", "chosen": False},
        {"engine": "openvino", "precision": "int8", "graph": None, "chosen": False, "why": "too few images."},
    ]
    return remake("several", engines=(first, *(first.model_copy(update=other) for other in others)))


def test_a_description_has_every_field_of_the_manifest_and_the_size_of_every_file(several: Bundle) -> None:
    shown = lensmith.describe(several.path).as_dict()
    assert {name: shown[name] for name in several.manifest.model_dump()} == several.manifest.model_dump(mode="json")
    assert shown["bytes"] == {file.name: file.stat().st_size for file in several.path.iterdir()}
    assert (shown["path"], shown["golden_samples"]) == (str(several.path), 3)


def test_every_engine_that_runs_here_is_asked_and_the_others_are_listed_with_the_reason(several: Bundle) -> None:
    verified = lensmith.verify(several.path)
    assert verified.problem is None
    assert {answer.engine: (answer.state, answer.reason) for answer in verified.answers} == {
        "onnxruntime-fp32": ("right", ""),
        "openvino-fp32": ("right", ""),
        "openvino-bf16": ("unavailable", "this processor has no NO-SUCH-SET"),
        "from-the-future-fp32": ("unavailable", "this lensmith knows no engine from-the-future"),
        "openvino-int8": ("absent", "too few images"),
    }


def test_an_engine_that_answers_otherwise_is_a_problem_and_the_next_is_still_asked(
    several: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_other(graph: str, engine: str, *args: Any) -> Any:
        if engine == "onnxruntime":
            return FakeEngine(lambda batch: np.zeros((len(batch), 3), np.float32))
        return open_graph(graph, engine, *args)

    monkeypatch.setattr("lensmith.inference.engine.open_graph", open_other)
    verified = lensmith.verify(several.path)
    assert [answer.state for answer in verified.answers[:2]] == ["wrong", "right"]
    assert "onnxruntime-fp32: " in str(verified.problem)
    assert verified.as_dict()["verified"] is False


def test_a_graph_that_does_not_load_or_engines_that_all_run_elsewhere_are_a_problem(
    remake: Remake, several: Bundle
) -> None:
    broken = EngineRecord(engine="onnxruntime", precision="int8", graph="golden.npz")  # its hash is right
    problem = str(lensmith.verify(remake("broken", engines=(*several.manifest.engines, broken)).path).problem)
    assert "onnxruntime-int8: " in problem
    assert "openvino" not in problem
    problem = str(lensmith.verify(remake("elsewhere", engines=several.manifest.engines[2:]).path).problem)
    assert "openvino-bf16: this processor has no NO-SUCH-SET; from-the-future-fp32: " in problem


@pytest.mark.parametrize("look", [lensmith.describe, lensmith.verify, lambda path: lensmith.diff(path, path)])
def test_a_changed_file_is_an_error_before_any_engine_is_run(several: Bundle, look: Callable[[Any], Any]) -> None:
    (several.path / "model.onnx").write_bytes(b"another graph")
    with pytest.raises(BundleError, match=r"model\.onnx has changed"):
        look(several.path)


def test_a_bundle_equals_itself_as_folder_and_zip(
    several: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    found = lensmith.diff(several.path, several.pack(tmp_path / "several.zip"))
    assert found.changes == ()
    assert found.as_dict()["equal"] is True


def test_numbers_that_differ_come_with_their_delta(remake: Remake) -> None:
    older = remake("older", metrics={"part": "val", "images": 100, "accuracy": 0.5, "good": True})
    newer = remake("newer", metrics={"part": "test", "images": 90, "accuracy": 0.75, "good": False})
    assert lensmith.diff(older.path, newer.path).as_dict()["differences"]["metrics"] == {
        "part": {"a": "val", "b": "test"},
        "images": {"a": 100, "b": 90, "delta": -10},
        "accuracy": {"a": 0.5, "b": 0.75, "delta": 0.25},
        "good": {"a": True, "b": False},
    }


def test_engines_are_compared_by_name_and_one_that_is_alone_is_one_change(several: Bundle, remake: Remake) -> None:
    first, second = several.manifest.engines[:2]
    other = remake("other", engines=(second.model_copy(update={"latency_ms": 2.0}), first))
    found = lensmith.diff(several.path, other.path).as_dict()["differences"]
    assert set(found) == {"engines"}
    assert found["engines"].pop("openvino-fp32.latency_ms") == {"a": None, "b": 2.0}
    assert set(found["engines"]) == {"openvino-bf16", "from-the-future-fp32", "openvino-int8"}
    assert found["engines"]["openvino-int8"]["a"]["why"] == "too few images."
    assert found["engines"]["openvino-int8"]["b"] is None


@pytest.mark.parametrize(
    ("labels", "what", "sides"),
    [
        (("blue", "green", "white"), "only there", (["red"], ["white"])),
        (("red", "green", "blue"), "order", (["blue", "green", "red"], ["red", "green", "blue"])),
        (("aqua", "blue", "green", "red"), "only there", ([], ["aqua"])),
    ],
)
def test_labels_differ_by_name_and_by_the_order_of_those_in_both(
    colour_bundle: Bundle, remake: Remake, labels: tuple[str, ...], what: str, sides: tuple[list[str], list[str]]
) -> None:
    assert _diff(colour_bundle, remake("other", labels=labels)) == (ManifestChange("labels", what, *sides),)


def test_what_one_bundle_has_and_the_other_lacks_is_a_change(colour_bundle: Bundle, remake: Remake) -> None:
    other = remake(
        "other",
        recipe={"lr": 0.1, "augment": {"flip": True}},
        abstention=Abstention(threshold=0.6, wanted=0.95, precision=0.96, coverage=0.8),
        temperature=1.5,
    )
    found = {(change.section, change.what): (change.a, change.b) for change in _diff(colour_bundle, other)}
    assert found == {
        ("recipe", "lr"): (None, 0.1),
        ("recipe", "augment"): (None, {"flip": True}),
        ("abstention", "threshold"): (None, 0.6),
        ("abstention", "wanted"): (None, 0.95),
        ("abstention", "precision"): (None, 0.96),
        ("abstention", "coverage"): (None, 0.8),
        ("bundle", "temperature"): (1.0, 1.5),
    }
    back = {(change.section, change.what): (change.b, change.a) for change in _diff(other, colour_bundle)}
    assert back == found


def test_another_file_is_a_change_by_its_hash(colour_bundle: Bundle, remake: Remake) -> None:
    other = remake("other")
    (other.path / MANIFEST).unlink()  # which does not list itself
    (other.path / "README.md").write_text("a card")
    assert _diff(colour_bundle, seal(other.path, other.manifest)) == (
        ManifestChange("files", "README.md", None, hashlib.sha256(b"a card").hexdigest()),
    )


def _diff(a: Bundle, b: Bundle) -> tuple[ManifestChange, ...]:
    return lensmith.diff(a.path, b.path).changes
