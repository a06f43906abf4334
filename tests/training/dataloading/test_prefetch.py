"""Batches arrive as they are, one ahead on a GPU."""

from typing import Any

import pytest
import torch

from lensmith.training.dataloading.dataset import Batch
from lensmith.training.dataloading.prefetch import prefetch


def batches(count: int, pinned: bool = False) -> list[Batch]:
    made = []
    for number in range(count):
        images = torch.full((3, 8, 8, 3), number, dtype=torch.uint8)
        batch = Batch(images, torch.arange(3), torch.full((3, 4), float(number)), [0, 1, 2], [])
        made.append(batch.pin_memory() if pinned else batch)
    return made


@pytest.mark.parametrize("count", [0, 1, 3])
def test_on_a_cpu_they_are_the_same(count: int) -> None:
    made = batches(count)
    arrived = list(prefetch(made, torch.device("cpu")))
    assert [id(one) for one in arrived] == [id(one) for one in made]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("count", [0, 1, 5])
def test_on_a_gpu_they_are_there_in_order_and_asked_for_one_early(count: int) -> None:
    asked: list[int] = []

    class Asked(list[Any]):
        def __iter__(self) -> Any:
            for number, batch in enumerate(super().__iter__()):
                asked.append(number)
                yield batch

    for number, batch in enumerate(prefetch(Asked(batches(count, pinned=True)), torch.device("cuda"))):
        assert batch.images.is_cuda
        assert not batch.labels.is_cuda
        assert int(batch.images.float().mean()) == number
        assert len(asked) == min(count, number + 2)
