"""`lensmith bundle`: what people and programs get from show, verify and diff."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from fixtures.command_line import Run
from lensmith.bundle.format import Abstention, Bundle
from lensmith.inference.engine import FakeEngine

Remake = Callable[..., Bundle]


@pytest.fixture
def measured(remake: Remake, colour_bundle: Bundle) -> Bundle:
    """A bundle as an export that measures writes it."""
    (first,) = colour_bundle.manifest.engines
    chosen = {
        "accuracy": 0.9512, "drop": 0.25, "latency_ms": 1.5, "images_per_second": 1234.4, "memory_bytes": 42_000_000,
        "bytes": 12_345_678, "why": "the fastest",
    }  # fmt: skip
    absent = {"engine": "openvino", "precision": "int8", "graph": None, "chosen": False, "why": "too few images"}
    elsewhere = {"engine": "openvino", "precision": "bf16", "needs": ("NO-SUCH-SET",), "chosen": False}
    return remake(
        "measured",
        engines=tuple(first.model_copy(update=update) for update in (chosen, elsewhere, absent)),
        metrics={"part": "val", "images": 300, "accuracy": 0.9512345, "accuracy_interval": [0.9, 0.98765]},
        calibration={"error_before": 0.1, "error_after": 0.02},
        abstention=Abstention(threshold=0.61, wanted=0.95, precision=0.96, coverage=0.8),
        machine={"processor": "a [fast] one", "cores": 2},
        dataset={"root": "photos", "parts": {"train": 700, "val": 300}},
        versions={"torch": "2.14.1"},
    )


def test_people_read_what_it_holds(run: Run, measured: Bundle) -> None:
    code, out, _ = run("bundle", "show", measured.path)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert lines[0].startswith("colours 1 ")
    assert "labels 3: blue, green, red" in lines
    assert "metrics part val, images 300, accuracy 0.9512, accuracy_interval [0.9, 0.9877]" in lines
    assert "calibration error_before 0.1, error_after 0.02" in lines
    assert "abstention threshold 0.61, wanted 0.95, precision 0.96, coverage 0.8" in lines
    assert "dataset root photos, parts (train 700, val 300)" in lines
    assert "→ onnxruntime-fp32 0.9512 +0.25 1.5 1234 12.3 42 – the fastest" in lines
    assert any(line.startswith("openvino-int8") and line.endswith("too few images") for line in lines)
    assert "measured on processor a [fast] one, cores 2" in lines
    assert f"model.onnx {(measured.path / 'model.onnx').stat().st_size}" in lines
    assert "3 golden samples, torch 2.14.1" in lines


def test_programs_read_the_manifest(run: Run, measured: Bundle) -> None:
    code, out, _ = run("bundle", "show", measured.path, "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["engines"][0]["why"] == "the fastest"
    assert set(shown["bytes"]) == {"bundle.json", "golden.npz", "model.onnx"}


def test_verify_says_what_answered_and_what_could_not_be_asked(run: Run, measured: Bundle) -> None:
    code, out, err = run("bundle", "verify", measured.path)
    assert (code, err) == (0, "")
    assert "✓ onnxruntime-fp32 answers correctly, 3 golden samples" in out
    assert "– openvino-bf16 cannot be run here: this processor has no NO-SUCH-SET" in out
    assert "– openvino-int8 not in it: too few images" in out
    code, out, _ = run("bundle", "verify", measured.path, "--json")
    found = json.loads(out)
    assert (code, found["verified"]) == (0, True)
    assert [engine["state"] for engine in found["engines"]] == ["right", "unavailable", "absent"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_engine_that_answers_otherwise_exits_with_2_and_one_paragraph(
    run: Run, measured: Bundle, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    wrong = FakeEngine(lambda batch: np.zeros((len(batch), 3), np.float32))
    monkeypatch.setattr("lensmith.inference.engine.open_graph", lambda *args: wrong)
    code, out, err = run("bundle", "verify", measured.path, *flags)
    assert code == 2
    assert err.count("\n") == 1
    assert "a probability differs by" in err
    if flags:
        found = json.loads(out)
        assert (found["verified"], found["error"]) == (False, "BundleError")
        assert found["message"] in err
        assert found["engines"][0]["state"] == "wrong"
    else:
        assert "✗ onnxruntime-fp32 WRONG" in out


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_a_changed_file_exits_with_2(run: Run, measured: Bundle, verb: str) -> None:
    (measured.path / "golden.npz").write_bytes(b"")
    code, out, err = run("bundle", verb, measured.path)
    assert (code, out) == (2, "")
    assert "golden.npz has changed" in err
    assert err.count("\n") == 1


def test_diff_is_a_table_of_what_differs(run: Run, measured: Bundle, remake: Remake) -> None:
    first = measured.manifest.engines[0]
    other = remake(
        "other",
        engines=(first.model_copy(update={"latency_ms": 1.0}),),
        metrics={**measured.manifest.metrics, "accuracy": 0.97},
        labels=("blue", "green", "white"),
        **{name: getattr(measured.manifest, name) for name in ("calibration", "abstention", "machine", "dataset")},
    )
    code, out, _ = run("bundle", "diff", measured.path, other.path)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert {"engines onnxruntime-fp32.latency_ms 1.5 1 -0.5", "versions torch 2.14.1 –"} <= set(lines)
    assert "of its own validation part, on which it was chosen" in " ".join(lines)
    code, out, _ = run("bundle", "diff", measured.path, other.path, "--json")
    found = json.loads(out)
    assert (code, found["equal"]) == (0, False)
    assert found["differences"]["engines"]["onnxruntime-fp32.latency_ms"] == {"a": 1.5, "b": 1.0, "delta": -0.5}


def test_equal_bundles_say_so(run: Run, colour_bundle: Bundle) -> None:
    code, out, _ = run("bundle", "diff", colour_bundle.path, colour_bundle.path)
    assert code == 0
    assert "The bundles are equal" in out
    assert json.loads(run("bundle", "diff", colour_bundle.path, colour_bundle.path, "--json")[1])["equal"] is True
