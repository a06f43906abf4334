"""What the folds of a cross-validation choose for the model on all images."""

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.training.cross_validation import choose_head
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.linear_probe.fit import fit_linear_probe
from lensmith.training.linear_probe.lbfgs import STRENGTHS
from lensmith.training.loss import task_of
from lensmith.training.run_dir.refit import HeadChoice


def tried(*scores: tuple[str, float, float], temperature: float = 1.0) -> dict[str, object]:
    """The event of a fold's head: solver, strength and score of each candidate."""
    rows = [{"way": way, "strength": strength, "score": score} for way, strength, score in scores]
    return {"tried": rows, "temperature": temperature}


def test_the_head_with_the_best_mean_score_is_chosen_of_those_that_all_folds_tried() -> None:
    strong, middle, weak = STRENGTHS[:3]
    one = tried(("L-BFGS", strong, -0.9), ("L-BFGS", middle, -0.3), ("L-BFGS", weak, -0.5), temperature=1.5)
    two = tried(("L-BFGS", strong, -0.8), ("L-BFGS", middle, -0.6), temperature=1.1)
    assert choose_head([one, two]) == HeadChoice("L-BFGS", middle, pytest.approx(1.3))
    # The weak one was best where it was tried, but one fold had given up before it.
    assert choose_head([tried(("L-BFGS", strong, -0.9), ("L-BFGS", weak, -0.1)), two]) == HeadChoice(
        "L-BFGS", strong, pytest.approx(1.05)
    )


def test_nearest_class_means_are_one_candidate_whatever_sharpness_each_fold_chose() -> None:
    strong = STRENGTHS[0]
    one = tried(("L-BFGS", strong, -0.9), ("nearest mean", 2.0**-8, -0.2))
    two = tried(("L-BFGS", strong, -0.8), ("nearest mean", 2.0**-10, -0.4))
    assert choose_head([one, two]) == HeadChoice("nearest mean", pytest.approx(2.0**-9), 1.0)
    assert choose_head([]) is None


@pytest.mark.parametrize(("name", "strength"), [("L-BFGS", STRENGTHS[4]), ("nearest mean", 2.0**-6)])
def test_the_chosen_head_is_solved_for_without_validation(name: str, strength: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 5, generator=generator) + 3 * torch.nn.functional.one_hot(labels, 5)
    settings = TrainSettings.model_validate({"data": "photos"})
    task = task_of(settings, ("a", "b", "c"), {0: 20, 1: 20, 2: 20}, torch.device("cpu"))  # type: ignore[arg-type]
    views = [Features(features.numpy().astype("float16"), {})]

    def fit(temperature: float) -> torch.Tensor:
        chosen = HeadChoice(name, strength, temperature)
        found = fit_linear_probe(views, labels, 3, None, task, settings, torch.device("cpu"), chosen=chosen)
        assert (found.head.name, found.head.strength, found.temperature) == (name, strength, temperature)
        assert found.correct >= 50
        return found.head.weight

    torch.testing.assert_close(fit(1.0), 2 * fit(2.0))
