"""Where the engines stand in the picture, and that their names can be read."""

import numpy as np
import pytest

from lensmith.bundle.format import EngineRecord
from lensmith.evaluation import scatter
from lensmith.evaluation.scatter import Scatter, ScatterPoint, draw


def engine(precision: str, speed: float | None, drop: float | None, **more: bool) -> EngineRecord:
    return EngineRecord(
        engine="onnxruntime", precision=precision, graph="x", images_per_second=speed, drop=drop, **more
    )  # fmt: skip


def by_name(picture: Scatter) -> dict[str, ScatterPoint]:
    return {point.record.precision: point for point in picture.points}


def test_right_is_faster_and_up_is_less_lost() -> None:
    found = by_name(draw([engine("fp32", 100, 0.0), engine("int8", 300, 0.4), engine("bf16", 200, -0.1)], 0.5))
    assert found["fp32"].x < found["bf16"].x < found["int8"].x
    assert found["bf16"].y < found["fp32"].y < found["int8"].y
    for point in found.values():
        assert scatter.LEFT <= point.x <= scatter.RIGHT
        assert scatter.TOP <= point.y <= scatter.BOTTOM


def test_ticks_are_round_and_stand_where_they_say() -> None:
    picture = draw([engine("fp32", 262.0, 0.0), engine("int8", 812.3, 0.21)], 0.5)
    assert [text for _, text in picture.x_ticks] == ["0", "200", "400", "600", "800", "1,000"]
    assert [text for _, text in picture.y_ticks] == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert picture.x_ticks[0][0] == scatter.LEFT
    assert picture.x_ticks[-1][0] == scatter.RIGHT
    assert picture.limit_y == picture.y_ticks[-1][0] == scatter.BOTTOM


@pytest.mark.parametrize("low", [-3.0, 0.0])
@pytest.mark.parametrize("high", [1e-9, 0.004, 1.0, 7.3, 10.0, 99_999.0])
def test_there_are_a_few_ticks_that_enclose_any_range(low: float, high: float) -> None:
    ticks = scatter._ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert ticks[0] <= low
    assert ticks[-1] >= high - 1e-8 * (high - low)


def test_an_engine_that_loses_very_much_does_not_squeeze_the_others() -> None:
    found = by_name(draw([engine("fp32", 100, 0.0), engine("int8", 300, 0.4), engine("int8-dynamic", 90, 60.0)], 0.5))
    assert found["int8-dynamic"].clipped
    assert found["int8-dynamic"].y == scatter.BOTTOM
    assert found["int8-dynamic"].label == "onnxruntime-int8-dynamic, 60.0 lost"
    assert found["int8"].y - found["fp32"].y > 40


def test_engines_without_a_speed_or_without_an_accuracy_are_left_out() -> None:
    records = [engine("fp32", 100, 0.0), engine("fp16", None, None), engine("int8", 200, None)]
    assert draw(records, 0.5) is None
    assert len(draw([*records, engine("bf16", 150, 0.0)], 0.5).points) == 2
    assert draw([], 0.5) is None


@pytest.mark.parametrize("seed", range(8))
def test_names_cover_neither_dots_nor_one_another_and_the_chosen_one_has_its_own(seed: int) -> None:
    random = np.random.default_rng(seed)
    speeds, drops = random.uniform(50, 900, 12), random.uniform(-0.1, 0.6, 12)
    records = [engine(f"p{i}", float(speeds[i]), float(drops[i]), chosen=i == 5, pareto=i % 3 == 0) for i in range(12)]
    points = draw(records, 0.5).points
    boxes = []
    for point in points:
        if point.label:
            width = 5.4 * len(point.label)
            start = {"start": 0.0, "middle": width / 2, "end": width}[point.anchor]
            boxes.append((point.label_x - start, point.label_y - 8, point.label_x - start + width, point.label_y + 2))
    dots = [(point.x - 5, point.y - 5, point.x + 5, point.y + 5) for point in points]
    for number, box in enumerate(boxes):
        assert 0 <= box[0] < box[2] <= scatter.WIDTH
        assert 0 <= box[1] < box[3] <= scatter.BOTTOM + 10
        assert not any(scatter._overlap(box, other) for other in (*boxes[:number], *boxes[number + 1 :], *dots))
    assert points[-1].record.chosen
    assert len(boxes) >= 6
