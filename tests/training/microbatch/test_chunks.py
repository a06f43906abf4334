"""Sizes of chunks, and inference that runs out of memory."""

import weakref
from collections.abc import Callable
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.chunks import chunks_of_virtual_batches, infer_in_chunks, split_evenly, split_into
from lensmith.training.microbatch.memory import TooLargeError

pytestmark = pytest.mark.usefixtures("_little_to_collect")

CPU = torch.device("cpu")
SIZES = st.integers(1, 300)


@given(st.integers(0, 300), SIZES)
def test_even_sizes_are_as_few_as_possible(length: int, most: int) -> None:
    found = split_evenly(length, most)
    assert sum(found) == length
    assert len(found) == -(-length // most)
    assert all(0 < piece <= most for piece in found)
    assert not found or max(found) - min(found) <= 1


@given(SIZES, SIZES)
def test_there_are_as_many_sizes_as_asked_for(length: int, number: int) -> None:
    """SyncBatchNorm waits for all ranks in each chunk: 8 and 9 images in four chunks must both be four."""
    found = split_into(length, number)
    assert (len(found), sum(found)) == (number, length)
    assert max(found) - min(found) <= 1


@given(st.integers(0, 300), SIZES, SIZES)
def test_virtual_batches_are_the_same_wherever_chunks_end(length: int, tile: int, most: int) -> None:
    chunks = chunks_of_virtual_batches(length, tile, most)
    assert all(0 < sum(sizes) <= most for sizes in chunks)
    whole = split_evenly(length, tile)
    if max(whole, default=0) <= most:
        assert list(chain(*chunks)) == whole
        counts = [len(sizes) for sizes in chunks]
        assert not counts or max(counts) - min(counts) <= 1
        fewer = split_into(len(whole), len(chunks) - 1) if len(chunks) > 1 else []
        assert not fewer or sum(whole[: fewer[0]]) > most
    else:
        assert list(chain(*chunks)) == split_evenly(length, most)


def test_a_batch_that_fits_is_not_split_because_virtual_batches_do_not_divide_it() -> None:
    assert len(chunks_of_virtual_batches(65, 32, 65)) == 1
    assert len(chunks_of_virtual_batches(114, 4, 114)) == 1


def doubles_up_to(most: int, error: Callable[[], Exception]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if len(x) > most:
            raise error()
        return 2 * x

    return forward


@given(st.integers(1, 60), st.integers(1, 60))
def test_answers_are_those_of_the_whole_batch_in_their_order(images: int, most: int) -> None:
    batch, scheduler = torch.randn(images, 3), ChunkScheduler()
    assert torch.equal(infer_in_chunks(scheduler, batch, doubles_up_to(most, MemoryError), CPU), 2 * batch)
    assert scheduler.chunk_size(images) <= most
    assert scheduler.chunks(images) <= max(1, 2 * -(-images // most) - 2)


def test_the_chunk_size_is_reused_and_grows_back() -> None:
    batch, scheduler, calls = torch.randn(16, 3), ChunkScheduler(), []

    def forward(x: Tensor) -> Tensor:
        calls.append(len(x))
        return doubles_up_to(5 if len(calls) < 20 else 16, MemoryError)(x)

    infer_in_chunks(scheduler, batch, forward, CPU)
    assert calls == [16, 8, 4, 4, 4, 4]
    infer_in_chunks(scheduler, batch, forward, CPU)
    assert calls[6:] == [4, 4, 4, 4]
    for _ in range(200):
        infer_in_chunks(scheduler, batch, forward, CPU)
    assert calls[-1] == 16


def test_outputs_before_the_failure_are_freed() -> None:
    kept: list[weakref.ref[Tensor]] = []

    def forward(x: Tensor) -> Tensor:
        if len(x) < 8:
            assert [reference() for reference in kept] == [None]
            return x
        if kept:
            raise MemoryError
        answer = x.clone()
        kept.append(weakref.ref(answer))
        return answer

    scheduler = ChunkScheduler(max_chunk=8)
    infer_in_chunks(scheduler, torch.randn(16, 3), forward, CPU)
    assert scheduler.limit == 4


def test_concatenating_outputs_may_run_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cat, left = torch.cat, [True]

    def cat_once(tensors: list[Tensor]) -> Tensor:
        if left and left.pop():
            raise MemoryError
        return cat(tensors)

    monkeypatch.setattr(torch, "cat", cat_once)
    batch = torch.randn(6, 2)
    assert torch.equal(infer_in_chunks(ChunkScheduler(max_chunk=3), batch, lambda x: x, CPU), batch)
    assert not left


def test_one_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(TooLargeError, match=r"1 of 4 images at once were expected.*\(no room\)"):
        infer_in_chunks(ChunkScheduler(), torch.randn(4, 2), doubles_up_to(0, lambda: MemoryError("no room")), CPU)


def test_other_errors_come_through() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        infer_in_chunks(
            ChunkScheduler(), torch.randn(4, 2), doubles_up_to(0, lambda: RuntimeError("shapes differ")), CPU
        )
