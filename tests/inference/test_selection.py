"""The fastest within the accuracy limit, and why."""

import pytest

from lensmith.bundle.format import EngineRecord
from lensmith.inference.selection import pareto_front, select


def record(name: str, speed: float | None = 100.0, drop: float = 0.0, **fields: object) -> EngineRecord:
    engine, precision = name.split()
    made = {"engine": engine, "precision": precision, "graph": "model.onnx", "latency_ms": 10.0, "bytes": 100}
    made |= {"images_per_second": speed, "accuracy": 0.9 - drop / 100, "drop": drop}
    return EngineRecord.model_validate({**made, **fields})


def names(records: tuple[EngineRecord, ...]) -> list[str]:
    return [each.name for each in records]


def test_the_fastest_within_the_limit_is_chosen_and_comes_first() -> None:
    records = record("onnxruntime fp32"), record("openvino int8", 400, 0.4), record("onnxruntime int8", 500, 0.6)
    found = select(records, 0.5)
    assert names(found) == ["openvino-int8", "onnxruntime-fp32", "onnxruntime-int8"]
    assert [each.chosen for each in found] == [True, False, False]
    assert found[0].why == "the fastest of 2 within 0.5 percentage points, 4.0× onnxruntime-fp32"
    assert found[1].why == "25% of the selected engine's speed"
    assert found[2].why == "loses 0.60 percentage points, and 0.5 are allowed"


@pytest.mark.parametrize(("speed", "chosen"), [(60, "openvino-bf16"), (101, "openvino-bf16"), (110, "openvino-int8")])
def test_of_engines_about_as_fast_as_each_other_the_more_faithful_is_chosen(speed: float, chosen: str) -> None:
    assert names(select([record("openvino int8", speed, 0.3), record("openvino bf16", 100, 0.0)], 0.5))[0] == chosen


def test_of_engines_as_fast_and_as_faithful_as_each_other_fp32_is_chosen() -> None:
    records = [record("openvino bf16", 101, latency_ms=5.0), record("openvino fp32", 100), record("openvino int8", 99)]
    assert names(select(records, 0.5))[0] == "openvino-fp32"
    assert names(select([*records, record("onnxruntime int8", 110)], 0.5))[0] == "onnxruntime-int8"


@pytest.mark.parametrize(
    ("images", "doubt"),
    [
        (9, "; 9 images may not show a loss of less than 28 percentage points"),
        (100, "; 100 images may not show a loss of less than 3 percentage points"),
        (597, "; 597 images may not show a loss of less than 0.5 percentage points"),
        (598, ""),
        (None, ""),
    ],
)
def test_what_few_images_cannot_show_of_a_rounding_engine_is_part_of_its_reason(images: int | None, doubt: str) -> None:
    found = select([record("openvino int8", 200), record("onnxruntime fp32")], 0.5, images)
    assert [each.why.partition(";")[1:] for each in found] == [doubt.partition(";")[1:], ("", "")]
    assert found[0].why.endswith(f"onnxruntime-fp32{doubt}")


@pytest.mark.parametrize("out", [{"graph": None, "why": "not made"}, {"images_per_second": None, "why": "crashed"}])
def test_what_has_no_graph_or_no_speed_comes_last_with_its_reason(out: dict[str, object]) -> None:
    found = select([record("openvino int8", 900, **out), record("onnxruntime fp32")], 0.5)
    assert names(found) == ["onnxruntime-fp32", "openvino-int8"]
    assert found[1].why == out["why"]
    assert found[0].why == "the only one within 0.5 percentage points"


def test_none_is_chosen_where_none_may_serve() -> None:
    assert not any(each.chosen for each in select([record("onnxruntime int8", 500, 2.0)], 0.5))


def test_marks_of_an_earlier_choice_are_gone() -> None:
    first = select([record("openvino int8", 200), record("onnxruntime fp32", 100)], 0.5)
    slower = [each.model_copy(update={"images_per_second": 50.0}) if each.chosen else each for each in first]
    again = select(slower, 0.5)
    assert names(again) == ["onnxruntime-fp32", "openvino-int8"]
    assert [each.chosen for each in again] == [True, False]


def test_the_front_holds_what_no_other_beats_in_everything() -> None:
    fast, small = record("openvino int8", 400, 0.4), record("onnxruntime int8", 300, 0.4, bytes=10)
    exact, beaten = record("onnxruntime fp32", 100, 0.0), record("openvino fp32", 90, 0.0, latency_ms=11)
    assert pareto_front([fast, small, exact, beaten]) == (fast, small, exact)
    assert [each.pareto for each in select([fast, small, exact, beaten], 0.5)] == [True, True, True, False]
