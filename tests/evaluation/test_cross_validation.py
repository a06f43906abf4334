"""Cross-validated figures: pooled answers, and intervals that count groups."""

import numpy as np
import pytest

from lensmith.core.stats import wilson
from lensmith.evaluation import fold_chart
from lensmith.evaluation.cross_validation import OutOfFold, group_bootstrap, group_interval
from lensmith.evaluation.metrics import bootstrap, measure


def answers(correct: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], classes: int = 3) -> OutOfFold:
    """Answers of two folds with 90 % confidence, correct where it is said; groups of four images."""
    truth = np.arange(len(correct)) % classes
    predicted = np.where(correct, truth, (truth + 1) % classes)
    probabilities = np.full((len(correct), classes), 0.1 / (classes - 1), np.float32)
    probabilities[np.arange(len(correct)), predicted] = 0.9
    return OutOfFold(truth, probabilities, np.arange(len(correct)) % 2, [f"g{row // 4}" for row in range(len(correct))])


@pytest.mark.parametrize("hits", [0, 1, 37, 50])
def test_of_single_images_the_interval_is_wilsons(hits: int) -> None:
    correct = np.arange(50) < hits
    assert group_interval(correct, np.arange(50)) == pytest.approx(wilson(hits, 50))


def test_images_that_fail_together_count_as_one() -> None:
    groups = np.repeat(np.arange(20), 10)
    together = group_interval(groups % 10 != 0, groups)  # two whole groups of 20 are wrong
    apart = group_interval(np.arange(200) % 10 != 0, groups)  # one image of each group is
    single = wilson(18, 20)
    assert together[1] - together[0] == pytest.approx(single[1] - single[0], rel=0.15)
    assert apart == pytest.approx(wilson(180, 200), abs=0.005)
    assert group_interval(np.full(200, True), groups) == pytest.approx(wilson(20, 20))


def test_figures_of_all_folds_count_what_other_training_images_would_change() -> None:
    """Nadeau and Bengio 2003: the variance is 1 + K / (K - 1) times that of the answers."""
    correct = np.random.default_rng(4).random(1200) < 0.75
    found = answers(correct).figures("loss", [1, 1], 1)
    groups = np.arange(1200) // 4
    narrow = group_bootstrap(answers(correct).truth, answers(correct).probabilities, groups)
    pairs = [(found.accuracy_interval, group_interval(correct, groups))]
    pairs += [(getattr(found, f"{name}_interval"), interval) for name, interval in narrow.items()]
    for (low, high), (least, most) in pairs:
        assert (high - low) / (most - least) == pytest.approx(3**0.5, rel=0.1)  # of 1 + 2 / 1
    one = correct[::2]
    assert found.folds[0].accuracy_interval == pytest.approx(group_interval(one, np.arange(600) // 2))


def test_the_interval_of_a_share_covers_it_in_95_of_100_draws_of_groups() -> None:
    rng, covered, as_single = np.random.default_rng(0), 0, 0
    for _ in range(300):
        sizes = rng.geometric(0.2, 60)
        groups = np.repeat(np.arange(60), sizes)
        correct = rng.random(len(groups)) < rng.beta(1.6, 0.4, 60)[groups]  # 80 %, and groups differ
        low, high = group_interval(correct, groups)
        covered += low <= 0.8 <= high
        low, high = wilson(int(correct.sum()), len(correct))
        as_single += low <= 0.8 <= high
    assert covered >= 0.89 * 300
    assert as_single <= 0.8 * 300


def test_the_bootstrap_of_single_images_is_that_of_images() -> None:
    found = answers(np.random.default_rng(1).random(300) < 0.8)
    by_group = group_bootstrap(found.truth, found.probabilities, np.arange(300))
    by_image = bootstrap(measure(found.truth, found.probabilities).confusion)
    for name, interval in by_image.items():
        assert by_group[name] == pytest.approx(interval, abs=0.01)


def test_figures_are_pooled_over_the_folds() -> None:
    correct = np.random.default_rng(2).random(120) < 0.75
    found = answers(correct).figures("f1", [3, 5], 4)
    assert (found.images, found.groups, found.epochs) == (120, 30, 4)
    assert found.accuracy == pytest.approx(correct.mean())
    assert [each.accuracy for each in found.folds] == pytest.approx([correct[::2].mean(), correct[1::2].mean()])
    assert [each.best_epoch for each in found.folds] == [3, 5]
    assert found.accuracy_spread == pytest.approx(np.std([correct[::2].mean(), correct[1::2].mean()], ddof=1))
    assert found.monitored == ("macro F1", found.f1_macro, found.f1_macro_interval)
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "log_loss"):
        low, high = getattr(found, f"{name}_interval")
        assert low < getattr(found, name) < high


def test_the_chart_holds_every_interval_between_its_first_and_last_tick() -> None:
    for share in (0.75, 1.0):
        found = answers(np.random.default_rng(3).random(120) < share).figures("loss", [1, 1], 1)
        chart = fold_chart.draw(found)
        assert [row.name for row in chart.rows] == ["fold 0", "fold 1", "all answers"]
        assert chart.ticks[0][0] == pytest.approx(fold_chart.LEFT)
        assert chart.ticks[-1][0] == pytest.approx(fold_chart.RIGHT)
        for row in chart.rows:
            assert fold_chart.LEFT - 1e-9 <= row.low <= row.x <= row.high <= fold_chart.RIGHT + 1e-9
        assert 2 <= len(chart.ticks) <= fold_chart.MOST_TICKS
