"""The gate with real bundles: which limits hold, which are broken, and what is neither."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal
from lensmith.bundle.image_hashes import FILE, ImageHashes
from lensmith.config.pipeline import GateSection
from lensmith.data.image_set import ImageSet
from lensmith.data.scan import scan
from lensmith.errors import DataError, GateError, SettingsError
from lensmith.workflows.pipeline.gate import GateResult, evaluate_gate
from lensmith.workflows.pipeline.intervals import Interval
from lensmith.workflows.pipeline.latency import measure_latency
from lensmith.workflows.pipeline.limits import LimitCheck, worst_first


def run_gate(
    new: Bundle, champion: Bundle | None, images: ImageSet, mapping: dict[str, str | None] | None = None, **limits: Any
) -> GateResult:
    """The gate's result; latency, which takes seconds, is measured only where a limit asks for it."""
    settings = GateSection(**{"latency_ratio": None, **limits})
    return evaluate_gate(new, champion, "colours@1" if champion else None, images, settings, mapping or {})[0]


@pytest.fixture(scope="session")
def images(many_colours: Path) -> ImageSet:
    """72 coloured pictures, all of them a test part."""
    found = scan(many_colours)
    return replace(found, samples=tuple(replace(sample, part="test") for sample in found.samples))


@pytest.fixture
def turned(relabel: Callable[..., Bundle]) -> Bundle:
    """A bundle that says the wrong colour each time."""
    return relabel("green", "red", "blue")


def verdicts(gate: GateResult) -> dict[str, str]:
    return {check.what: check.verdict for check in gate.limits}


def test_a_model_as_good_as_the_champion_passes(colour_bundle: Bundle, images: ImageSet) -> None:
    gate = run_gate(colour_bundle, colour_bundle, images)
    assert gate.passed
    assert (gate.champion, gate.images, gate.accuracy.value) == ("colours@1", 72, 1.0)
    found = verdicts(gate)
    assert found["accuracy (against always naming the commonest class)"] == "holds"
    assert found["calibration error, new − champion"] == "holds"
    assert found["accuracy, new − champion"] == "open"  # 72 images cannot show half a point


def test_strict_refuses_what_cannot_be_shown(colour_bundle: Bundle, images: ImageSet) -> None:
    gate = run_gate(colour_bundle, colour_bundle, images, strict=True)
    assert not gate.passed
    assert [check.limit for check in gate.failed] == ["accuracy_drop", *["recall_drop"] * 3]
    assert run_gate(colour_bundle, colour_bundle, images, strict=True, accuracy_drop=10, recall_drop=30).passed


def test_a_worse_model_fails_and_each_number_is_named(turned: Bundle, colour_bundle: Bundle, images: ImageSet) -> None:
    gate = run_gate(turned, colour_bundle, images, min_recall=0.5, min_accuracy=0.6)
    assert not gate.passed
    names = [check.limit for check in gate.failed]
    assert [check.verdict for check in gate.failed] == sorted(check.verdict for check in gate.failed)
    expected = {"above_commonest", "min_accuracy", "min_recall", "accuracy_drop", "recall_drop"}
    assert expected <= set(names)
    said = "; ".join(gate.as_dict()["failed"])
    assert "accuracy_drop: accuracy, new − champion is -100 points, 95 % interval -100 to -100, at least -0.5" in said
    assert "98.33 % interval" in said  # three classes together
    assert gate.as_dict()["limits"][0]["fails"] is True
    json.dumps(gate.as_dict(), allow_nan=False)


def test_what_is_broken_is_named_before_what_is_not_shown() -> None:
    """An error names some of them only."""
    broken, unknown = Interval(0.5, 0.4, 0.6), Interval(0.8, 0.7, 0.9)
    limits = [LimitCheck(str(number), "recall", unknown, 0.75, "least", must_hold=True) for number in range(9)]
    limits.append(LimitCheck("worst", "recall", broken, 0.75, "least"))
    assert [check.limit for check in worst_first(limits)][:2] == ["worst", "0"]


def test_without_a_champion_only_absolute_limits_are_checked(turned: Bundle, images: ImageSet) -> None:
    gate = run_gate(turned, None, images)
    assert [check.limit for check in gate.failed] == ["above_commonest"]
    assert any("no champion to compare with" in note for note in gate.notes)
    assert run_gate(turned, None, images, above_commonest=False).passed


def test_floors_may_differ_by_class(turned: Bundle, images: ImageSet) -> None:
    gate = run_gate(turned, None, images, min_recall={"*": 0.0, "red": 0.5}, above_commonest=False)
    assert [check.what for check in gate.failed] == ["recall of red"]


def test_other_labels_are_refused_unless_they_are_mapped(
    relabel: Callable[..., Bundle], colour_bundle: Bundle, images: ImageSet
) -> None:
    champion = relabel("azure", "green", "red")
    with pytest.raises(SettingsError, match="only the new model knows blue; only the champion knows azure"):
        run_gate(colour_bundle, champion, images)
    gate = run_gate(colour_bundle, champion, images, {"blue": "azure"})
    assert gate.passed
    assert "recall of azure, new − champion" in verdicts(gate)
    with pytest.raises(SettingsError, match="only the champion knows azure"):
        run_gate(colour_bundle, champion, images, {"blue": None})


def test_classes_that_the_champion_does_not_distinguish_count_as_one(
    relabel: Callable[..., Bundle], colour_bundle: Bundle, images: ImageSet
) -> None:
    new = relabel("azure", "teal", "red")  # calls green teal, which is as good as azure to the champion
    labelled = replace(images, labels=("azure", "teal", "red"))
    champion = relabel("blue", "green", "red")
    with pytest.raises(SettingsError, match="only the champion knows green"):
        run_gate(new, champion, labelled, {"azure": "blue", "teal": "blue"})
    right = run_gate(new, champion, labelled, {"azure": "blue", "teal": "green"})
    assert right.passed
    crossed = run_gate(new, champion, labelled, {"azure": "green", "teal": "blue"})
    drops = {check.what: check.measured for check in crossed.limits if check.limit == "recall_drop"}
    assert (
        drops["recall of green, new − champion"].value == 100
    )  # the champion is the one that is wrong by that mapping
    assert drops["recall of red, new − champion"].value == 0


def test_a_class_that_is_new_is_left_out_of_the_comparison(
    relabel: Callable[..., Bundle], colour_bundle: Bundle, images: ImageSet, two_class_bundle: Bundle
) -> None:
    gate = run_gate(colour_bundle, two_class_bundle, images, {"blue": None})
    assert gate.images == 48
    assert any("the 48 of 72 images whose class the champion knows" in note for note in gate.notes)
    assert gate.passed


def test_a_note_says_that_a_champion_without_hashes_may_know_these_images(
    remake: Callable[..., Bundle], images: ImageSet
) -> None:
    new, old = (remake(name, dataset={"fingerprint": name}) for name in ("new", "old"))
    gate = run_gate(new, old, images)
    assert any("colours@1 does not know all images that it learnt from" in note for note in gate.notes)
    same = remake("same", dataset={"fingerprint": images.fingerprint})  # so this is its own test part
    gate = run_gate(same, same, images)
    assert not any("does not know" in note for note in gate.notes)


@pytest.fixture
def knowing(colour_bundle: Bundle, images: ImageSet, tmp_path: Path) -> Callable[..., Bundle]:
    """`knowing(name, train, val)`: the bundle that knows the colours, which knows these rows of the images, too."""

    def make(name: str, train: slice, val: slice = slice(0)) -> Bundle:
        folder = tmp_path / name
        folder.mkdir()
        for file in (GRAPH, GOLDEN):
            shutil.copy(colour_bundle.path / file, folder)
        hashes = ImageHashes.of(*([images.file(sample) for sample in images.samples[rows]] for rows in (train, val)))
        hashes.save(folder / FILE)
        return seal(folder, colour_bundle.manifest.model_copy(update={"image_hashes": hashes.entry}))

    return make


def test_images_that_one_of_the_models_knows_are_left_out(
    knowing: Callable[..., Bundle], images: ImageSet, tmp_path: Path
) -> None:
    new, old = knowing("new", slice(0, 6)), knowing("old", slice(3, 30), slice(40, 43))
    gate = run_gate(new, old, images)
    assert gate.images == 72 - 30 - 3
    assert (gate.held_out.of, gate.held_out.left_out) == (72, 6)
    assert any("Left out of the comparison: 27 of 66 images, which colours@1 knows" in note for note in gate.notes)
    assert gate.notes[0] == "Held out 66 of 72 images, part test."
    json.dumps(gate.as_dict(), allow_nan=False)
    moved = Path(shutil.copytree(images.root, tmp_path / "moved"))
    for file in sorted(moved.rglob("*.*")):
        file.rename(file.with_name(f"new-{file.name}"))
    renamed = scan(moved)
    renamed = replace(renamed, samples=tuple(replace(sample, part="test") for sample in renamed.samples))
    assert run_gate(new, old, renamed).images == gate.images


def test_models_are_not_compared_on_images_that_one_of_them_knows(
    knowing: Callable[..., Bundle], colour_bundle: Bundle, images: ImageSet
) -> None:
    with pytest.raises(DataError, match="the new model neither learnt from"):
        run_gate(knowing("new", slice(0, 70), slice(70, 72)), None, images)
    with pytest.raises(DataError, match="colours@1 neither learnt from"):
        run_gate(colour_bundle, knowing("old", slice(0, 72)), images)


def test_the_validation_part_takes_the_place_of_a_missing_test_part(
    knowing: Callable[..., Bundle], images: ImageSet
) -> None:
    images = replace(images, samples=tuple(replace(sample, part="val") for sample in images.samples))
    gate = run_gate(knowing("new", slice(0), slice(0, 72)), knowing("old", slice(0, 12), slice(12, 20)), images)
    assert (gate.part, gate.images) == ("val", 60)
    assert gate.notes[0] == "72 of 72 images, part val, not held out: the model was chosen on 72 of them."


def test_latency_and_size_are_measured_side_by_side(colour_bundle: Bundle, images: ImageSet) -> None:
    gate = run_gate(
        colour_bundle, colour_bundle, images, latency_ratio=20, size_ratio=1, max_size_mb=1, max_latency_ms=1000
    )
    found = {check.limit: check for check in gate.limits}
    assert found["latency_ratio"].verdict == found["size_ratio"].verdict == found["max_size_mb"].verdict == "holds"
    assert found["latency_ratio"].measured
    assert 0.05 < found["latency_ratio"].measured.value < 20
    assert found["max_latency_ms"].measured
    assert found["max_latency_ms"].measured.value > 0
    assert [each.limit for each in run_gate(colour_bundle, None, images, max_size_mb=1e-6).failed] == ["max_size_mb"]


def test_a_bundle_that_does_not_run_is_an_error_of_the_gate(
    colour_bundle: Bundle, tmp_path: Path, images: ImageSet
) -> None:
    copy = Path(shutil.copytree(colour_bundle.path, tmp_path / "copy"))
    (copy / "model.onnx").write_bytes(b"x")
    with pytest.raises(GateError):
        measure_latency([copy], [images.file(images.samples[0])])


def test_the_table_has_a_row_for_each_limit(colour_bundle: Bundle, images: ImageSet) -> None:
    gate = run_gate(colour_bundle, None, images, min_recall=0.5)
    unknown = LimitCheck("min_recall", "recall of a|b", None, 0.5, "least")
    lines = replace(gate, limits=(*gate.limits, unknown)).markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(gate.limits) + 1
    assert {row.count("|") for row in rows} == {8}
    assert "| min_recall | recall of red | 1 | 0.8072 to 1 |" in "\n".join(rows)


@pytest.mark.parametrize(
    ("low", "high", "side", "verdict"),
    [
        (0.5, 0.6, "least", "holds"), (0.3, 0.49, "least", "broken"), (0.4, 0.6, "least", "open"),
        (0.4, 0.5, "most", "holds"), (0.51, 0.6, "most", "broken"), (0.4, 0.6, "most", "open"),
    ],
)  # fmt: skip
def test_a_limit_holds_is_broken_or_open_by_its_interval(low: float, high: float, side: Any, verdict: str) -> None:
    check = LimitCheck("x", "x", Interval((low + high) / 2, low, high), 0.5, side)
    assert check.verdict == verdict
    assert check.fails is (verdict == "broken")
    assert replace(check, must_hold=True).fails is (verdict != "holds")
    assert LimitCheck("x", "x", None, 0.5, side, must_hold=True).fails


def test_a_champion_that_knows_no_class_of_the_test_images_is_no_comparison(
    colour_bundle: Bundle, images: ImageSet, two_class_bundle: Bundle
) -> None:
    blue = images.labels.index("blue")
    new = replace(images, samples=tuple(sample for sample in images.samples if sample.label == blue))
    with pytest.raises(DataError, match="All 24 are of classes that are new to it"):
        run_gate(colour_bundle, two_class_bundle, new, {"blue": None})
