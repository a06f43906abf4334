"""Phases with frozen layers learn from features: the same as from images, without running those layers again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.data.split import prepare
from lensmith.training import feature_source, loop
from lensmith.training.feature_cache import backends
from lensmith.training.learner import Learner
from lensmith.training.result import RunResult
from lensmith.training.run_dir import checkpoint
from lensmith.training.schedule import Phase, phases_of
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer

Train = Callable[..., RunResult]


@pytest.fixture
def train(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_plots: None
) -> Train:
    """Train on the colours; features in full precision, so that they can be compared with none."""
    monkeypatch.setattr(backends, "available_backends", lambda device: ["torch fp32"])
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))

    def run(name: str = "run", **changes: Any) -> RunResult:
        settings = {**quick, "cache_gb": 1, "data": shared_colours, "out": tmp_path / name, **changes}
        return Trainer().start(TrainSettings.model_validate(settings))

    return run


def weights(fitted: RunResult) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = checkpoint.load(fitted.run.last)["learner"]["model"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        {"trainable_stages": 0, "epochs": 4, "views": 3, "augment": "standard", "optimizer": "sgd", "lr": 0.05},
        {"trainable_stages": 0, "epochs": 3, "views": 2, "class_weights": "balanced", "label_smoothing": 0.2},
        {"trainable_stages": 0, "epochs": 3, "views": 2, "sampling": "balanced"},
        {"trainable_stages": 1, "epochs": 6, "head_epochs": 0, "views": 3},
        {"trainable_stages": 2, "head_epochs": 0, "views": 2, "batch_norm": "train", "optimizer": "sgd", "lr": 0.01},
        {"model": "test_vit", "image_size": 160, "trainable_stages": 2, "epochs": 4, "head_epochs": 0, "views": 2},
    ],
    ids=lambda recipe: " ".join(f"{name}={value}" for name, value in recipe.items()),
)
def test_training_on_kept_features_is_training_on_the_same_views_of_the_images(
    train: Train, recipe: dict[str, Any]
) -> None:
    cached, uncached = train("cached", **recipe), train("uncached", feature_cache="never", **recipe)
    assert len(cached.run.read_events("features")) == 1
    assert not uncached.run.read_events("features")
    ours, theirs = weights(cached), weights(uncached)
    first = weights(train("first", feature_cache="never", **{**recipe, "max_steps": 1, "lr": 1e-9}))
    moved = sum(float((theirs[name] - first[name]).norm() ** 2) for name in theirs if theirs[name].is_floating_point())
    apart = sum(float((ours[name] - theirs[name]).norm() ** 2) for name in theirs if theirs[name].is_floating_point())
    assert apart < (0.02**2) * moved  # float16 keeps three digits
    for name in ("train_loss", "val_loss"):
        for one, other in zip(cached.run.read_events("epoch"), uncached.run.read_events("epoch"), strict=True):
            assert one[name] == pytest.approx(other[name], abs=2e-3)


def test_the_next_run_finds_the_features_and_other_weights_make_others(train: Train) -> None:
    recipe = {"trainable_stages": 0, "epochs": 2}
    first, again = train("first", **recipe), train("again", **recipe, lr=0.01)
    other = train("other", **recipe, seed=1)  # random weights follow the seed
    assert [one.run.read_events("features")[0]["computed"] for one in (first, again, other)] == [True, False, True]


@pytest.mark.parametrize("recipe", [{"ema": 0.9}, {"mixup": 0.2, "cutmix": 0.2, "dropout": 0.3}])
def test_the_switch_from_a_solved_head_to_fine_tuning_loses_nothing(train: Train, recipe: dict[str, Any]) -> None:
    fitted = train(head_solver="auto", epochs=3, head_epochs=2, **recipe)
    (head,) = fitted.run.read_events("head")
    assert {one["way"] for one in head["tried"]} == {"L-BFGS", "nearest mean"}
    lines = fitted.run.read_events("epoch")
    assert [(line["epoch"], line["phase"]) for line in lines] == [(2, "head"), (3, "all")]
    # The same again, with rates of nothing after the switch: what is judged then is the whole network with that head.
    still = train("still", head_solver="auto", epochs=3, head_epochs=2, **{**recipe, "lr": 1e-12, "weight_decay": 0})
    before, after = still.run.read_events("epoch")
    assert after["val_accuracy"] == before["val_accuracy"]
    assert after["val_loss"] == pytest.approx(before["val_loss"], abs=2e-3)


def test_the_rates_of_a_solved_head_warm_up_with_the_rest(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    plain = Learner.training_step

    def take(self: Learner, *given: Any) -> Any:
        outcome = plain(self, *given)
        rates.append([group["lr"] / group["peak"] for group in self.optimizer.param_groups])
        return outcome

    monkeypatch.setattr(Learner, "training_step", take)
    train(head_solver="auto", epochs=6, head_epochs=1, warmup=0.2)
    assert len(set(rates[0])) == 1
    assert rates[0][0] < 0.4


def test_all_epochs_of_a_frozen_backbone_are_one_solution(train: Train) -> None:
    fitted = train(preset="fast", head_solver="auto", trainable_stages=0, epochs=7)
    assert [line["epoch"] for line in fitted.run.read_events("epoch")] == [7]
    assert fitted.metrics["val_accuracy"] >= 0.9


@pytest.mark.parametrize("solver", ["auto", "minibatch"])
def test_stopped_while_features_are_computed_it_goes_on(
    train: Train, solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"head_solver": solver, "epochs": 3, "head_epochs": 2}
    whole = weights(train("whole", **recipe))
    plain = feature_source.FeatureSource._compute

    def stopping(self: Any, *given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *given)

    monkeypatch.setattr(feature_source.FeatureSource, "_compute", stopping)
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "empty"))
    with pytest.raises(RunInterruptedError):
        train("stopped", **recipe)
    monkeypatch.setattr(feature_source.FeatureSource, "_compute", plain)
    ours = weights(Trainer().resume(tmp_path / "stopped"))
    assert all(torch.equal(ours[name], value) for name, value in whole.items())


def test_killed_after_the_head_was_solved_it_goes_on_to_the_same_bits(
    train: Train, in_child: Callable[[Callable[[], None]], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"head_solver": "auto", "epochs": 4, "head_epochs": 2}
    whole = weights(train("whole", **recipe))
    plain, steps = Learner.training_step, iter(range(99))

    def killed() -> None:
        def take(self: Learner, *given: Any) -> Any:
            if next(steps) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, *given)

        monkeypatch.setattr(Learner, "training_step", take)
        train("killed", **recipe)

    assert in_child(killed) == -signal.SIGKILL
    ours = weights(Trainer().resume(tmp_path / "killed"))
    assert all(torch.equal(ours[name], value) for name, value in whole.items())


@pytest.mark.parametrize("stages", [0, 1])
def test_image_sizes_that_change_from_phase_to_phase_are_judged_at_the_last(train: Train, stages: int) -> None:
    fitted = train(image_size=None, sizes=(32, 48), trainable_stages=stages, head_epochs=0, epochs=8, views=2)
    assert [line["phase"] for line in fitted.run.read_events("features")] == [
        line["phase"] for line in fitted.run.read_events("phase")
    ]
    assert len(fitted.run.read_events("features")) == 2
    assert fitted.run.preprocessing.image_size == 48


def test_classes_that_are_to_be_drawn_equally_often_count_equally_in_a_solved_head(train: Train, colours: Path) -> None:
    for number in range(2, 8):
        next((colours / "red").glob(f"{number:03d}.*")).unlink()
    recipe = {"data": colours, "head_solver": "lbfgs", "trainable_stages": 0, "epochs": 1, "split": "1:1:0"}
    drawn, weighed = train("drawn", sampling="balanced", **recipe), train("weighed", class_weights="balanced", **recipe)
    plain = train("plain", **recipe)
    assert torch.equal(weights(drawn)["fc.weight"], weights(weighed)["fc.weight"])
    assert not torch.equal(weights(drawn)["fc.weight"], weights(plain)["fc.weight"])


def test_a_run_goes_on_where_its_engine_is_not(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "run_epoch", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunInterruptedError):
            train(epochs=3, head_epochs=1)
    state = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert state["runners"] == {"head": "torch fp32"}
    state["runners"] = {"head": "abacus fp32"}
    checkpoint.save(state, tmp_path / "run" / "checkpoints" / "last.pt")
    assert Trainer().resume(tmp_path / "run").epochs == 3


def test_images_that_become_unreadable_are_named_and_left_out(
    train: Train, colours: Path, lose: Callable[[list[str]], None]
) -> None:
    parts = prepare(colours, (5, 3, 2), 0)
    lost = [parts.part("train")[0].path, parts.part("val")[0].path]
    lose(lost)
    fitted = train(data=colours, head_solver="auto", trainable_stages=0, epochs=2)
    assert [line["path"] for line in fitted.run.read_events("left_out")] == lost
    assert [line["images"] for line in fitted.run.read_events("epoch")] == [11]


def test_where_features_find_no_room_the_run_says_so_and_takes_the_images(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lensmith.training.feature_cache.features._MEMORY_SHARE", 0.0)
    fitted = train(cache_gb=0, trainable_stages=0, epochs=2)
    (event,) = fitted.run.read_events("no_features")
    assert f"run in every epoch: {event['reason']}" in capsys.readouterr().err
    assert fitted.epochs == 2


SETTINGS = {"data": "photos", "epochs": 20}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, None]),
        ({"views": 3}, [3, None]),
        ({"augment": "none", "views": 3}, [1, None]),
        ({"mixup": 0.2}, [1, None]),
        ({"mixup": 0.2, "trainable_stages": 0}, [None]),
        ({"teacher": "run"}, [None, None]),
        ({"teacher": "run", "teacher_weight": 0.0, "feature_weight": 0.2}, [None, None]),
        ({"trainable_stages": 2}, [1, 4]),
        ({"trainable_stages": 2, "unfreeze_every": 1}, [1, None, 4]),
        ({"trainable_stages": 0}, [1]),
    ],
    ids=str,
)
def test_which_phases_take_turns_at_views(settings: dict[str, Any], expected: list[int | None]) -> None:
    made = TrainSettings.model_validate({**SETTINGS, **settings})
    assert [feature_source.views(phase, made) for phase in phases_of(made, stages=5)] == expected


def test_pictures_are_mixed_only_once_the_backbone_learns() -> None:
    made = TrainSettings.model_validate({**SETTINGS, "mixup": 0.2})
    assert [phase.is_head_warmup for phase in phases_of(made, stages=5)] == [True, False]
    alone = TrainSettings.model_validate({**SETTINGS, "mixup": 0.2, "trainable_stages": 0})
    assert [phase.is_head_warmup for phase in phases_of(alone, stages=5)] == [False]
    assert not Phase("all", 0, 1, None).is_head_warmup
