"""The fastest precision is measured, and measuring leaves no trace."""

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.training import precision
from lensmith.training.feature_cache import split_model
from lensmith.training.learner import Learner
from lensmith.training.models import backbone
from lensmith.training.schedule import Phase
from lensmith.training.trial_steps import exact_among_fastest

CPU = torch.device("cpu")
HEAD, LAST, ALL = Phase("head", 0, 1, 0), Phase("last 1", 0, 1, 1), Phase("all", 1, 2, None)


@pytest.fixture(autouse=True)
def nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path))


class Clock:
    """Time that passes only when a step says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(precision, "time", made)
    monkeypatch.setattr(precision, "candidates", lambda device: ("fp32", "bf16"))
    return made


@pytest.mark.parametrize(("seconds", "fastest"), [((2.0, 1.0), "bf16"), ((1.0, 2.0), "fp32"), ((1.0, 1.0), "fp32")])
def test_the_quicker_of_two_wins_and_a_tie_keeps_full_precision(
    clock: Clock, seconds: tuple[float, float], fastest: str
) -> None:
    def step(name: str) -> None:
        clock.now += seconds[("fp32", "bf16").index(name)]

    found = precision.fastest(step, CPU)
    assert min(found, key=found.__getitem__) == fastest


def test_a_slow_first_step_and_one_hiccup_do_not_count(clock: Clock) -> None:
    times = {"fp32": [1.0, 2.0, 2.0, 2.0], "bf16": [90.0, 1.0, 70.0, 1.0]}

    def step(name: str) -> None:
        clock.now += times[name].pop(0)

    assert precision.fastest(step, CPU) == {"fp32": 2.0, "bf16": 1.0}
    assert times == {"fp32": [], "bf16": []}


@pytest.mark.parametrize(
    ("flags", "names"), [(["AVX2", "AVX-512"], ("fp32",)), (["BF16"], ("fp32", "bf16")), ([], ("fp32",))]
)
def test_bfloat16_is_a_candidate_where_the_processor_has_it(
    flags: list[str], names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "instruction_sets", lambda: flags)
    assert precision.candidates(CPU) == names


@pytest.mark.parametrize(
    ("chosen", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_forward_pass_runs_at_the_precision_it_is_given(chosen: str, dtype: torch.dtype) -> None:
    with precision.autocast(CPU, chosen):
        assert torch.nn.Linear(3, 2)(torch.zeros(1, 3)).dtype == dtype


@pytest.mark.parametrize(
    ("half", "first", "expected"),
    [
        (0.96, 1.0, ("fp32", "channels_last")),  # what bf16 gains here the next trial may take back
        (0.90, 1.0, ("bf16", "channels_last")),
        (0.90, 0.92, ("fp32", "channels_first")),
        (0.90, 0.80, ("fp32", "channels_first")),
    ],
)
def test_full_precision_is_left_only_for_what_is_clearly_faster(
    half: float, first: float, expected: tuple[str, str]
) -> None:
    seconds = {("fp32", "channels_last"): 1.0, ("bf16", "channels_last"): half, ("fp32", "channels_first"): first}
    assert exact_among_fastest(seconds) == expected


def learner() -> Learner:
    values = {"data": "photos", "model": "test_resnet", "pretrained": False, "image_size": 32, "batch_size": 4}
    settings = TrainSettings.model_validate({**values, "batch_norm": "train", "dropout": 0.5, "precision": "auto"})
    network = backbone.build(settings, 3)
    return Learner(network, settings, network.preprocessing, ("blue", "green", "red"), Counter(range(3)), CPU)


@pytest.mark.parametrize("phase", [HEAD, ALL], ids=lambda phase: phase.name)
def test_the_trial_leaves_weights_statistics_gradients_and_random_numbers_alone(
    clock: Clock, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner()
    before, random = copy.deepcopy(made.model.state_dict()), torch.get_rng_state()
    tried: list[str] = []
    autocast = precision.autocast
    monkeypatch.setattr(precision, "autocast", lambda device, name: (tried.append(name), autocast(device, name))[1])
    made.enter(phase)
    assert tried == ["fp32", "bf16"] * 4 * 2  # in either layout
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
    assert all(parameter.grad is None for parameter in made.model.parameters())
    assert not made.optimizer.state


def test_each_phase_is_tried_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [(2.0, 1.5), (2.0, 1.0), (1.0, 2.0), (2.0, 2.0)]
    seconds = [{"fp32": full, "bf16": half} for full, half in times]
    precisions = [("bf16", "channels_first"), ("fp32", "channels_last")]
    monkeypatch.setattr(precision, "fastest", lambda step, device: seconds.pop(0))
    made = learner()
    assert [made.enter(phase) for phase in (LAST, ALL, LAST, ALL)] == [*(chosen for chosen, _ in precisions)] * 2
    assert [*made.precisions.values()] == precisions
    again = learner()
    assert [again.enter(phase) for phase in (LAST, ALL)] == ["bf16", "fp32"]
    assert not seconds


def test_a_head_on_features_is_too_little_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fastest", lambda *_: pytest.fail("tried"))
    made = learner()
    assert made.enter(HEAD, split_model.find_split_point(made.network, 0, 32)) == "fp32"
