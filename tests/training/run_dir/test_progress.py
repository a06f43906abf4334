"""Figures of an epoch are means over what was seen; those of several ranks add up."""

from dataclasses import asdict

from lensmith.training.run_dir.progress import Figures


def test_figures_are_means_over_what_was_seen() -> None:
    figures = Figures(seen=8, weight=16.0, loss_sum=4.0, correct=6.0, seconds=2.0)
    assert (figures.loss, figures.accuracy, figures.images_per_second) == (0.25, 0.75, 4.0)
    assert (Figures().loss, Figures().accuracy, Figures().images_per_second) == (0.0, 0.0, 0.0)


def test_ranks_add_up_what_they_saw_and_share_the_time() -> None:
    ranks = [Figures(8, 4.0, 3.0, 5.0, 2.0, 0.5, 1, 2, 700), Figures(4, 2.0, 1.5, 1.0, 1.5, 1.0, 3, 2, 900)]
    both = Figures.of_all([asdict(rank) for rank in ranks])
    assert both == Figures(12, 6.0, 4.5, 6.0, 2.0, 1.0, 3, 2, 900)
    assert (both.loss, both.accuracy, both.images_per_second) == (0.75, 0.5, 6.0)
