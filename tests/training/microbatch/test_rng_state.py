"""Generators go on from where they were."""

import io
import random
from typing import Any

import numpy as np
import torch

from lensmith.training.microbatch.rng_state import random_state, set_random_state

CPU = torch.device("cpu")


def draw() -> list[Any]:
    # A Gaussian keeps a second number for the next call.
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()]


def test_what_is_drawn_after_a_restore_is_what_was_drawn_before() -> None:
    draw()
    state = random_state(CPU)
    drawn = [draw() for _ in range(3)]
    for _ in range(2):  # drawing does not change the state
        set_random_state(state, CPU)
        assert [draw() for _ in range(3)] == drawn


def test_a_state_goes_through_a_checkpoint_of_plain_values() -> None:
    state, file = random_state(CPU), io.BytesIO()
    torch.save(state, file)
    drawn = [draw() for _ in range(700)]  # more words than NumPy's generator makes at a time
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True), CPU)
    assert [draw() for _ in range(700)] == drawn
