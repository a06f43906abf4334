"""Freed memory is retained for the next step, or returned to the system: in processes of their own."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from lensmith.training.microbatch import malloc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt and /proc are Linux's")

MB = 2**20
Run = Callable[[str], list[Any]]


def test_a_step_that_is_like_the_last_one_gets_no_new_pages(run_script: Run) -> None:
    returned, first, retained, again = run_script("""
        malloc.return_freed_memory()
        step()
        print(step())
        malloc.retain_freed_memory()
        print(step())
        print(min(step() for _ in range(12)))  # until each block has found its place
        malloc.return_freed_memory()
        print(step())
    """)
    pages = 200 * MB // 4096
    assert returned > 0.9 * pages
    assert first > 0.9 * pages
    assert retained < 0.01 * pages
    # What the heap has is used first, also by blocks that would be mappings of their own; then it goes back.
    assert again > 0.9 * pages


def test_retained_memory_goes_back(run_script: Run) -> None:
    start, retained, restored, later = run_script("""
        step()
        print(held())
        malloc.retain_freed_memory()
        step()
        print(held())
        malloc.restore_defaults()
        print(held())
        torch.ones(400 * 2**20, dtype=torch.uint8)  # more than the places that the heap still has
        print(held())
    """)
    assert retained - start > 190 * MB
    assert restored - start < 20 * MB
    assert later - start < 20 * MB


def test_after_memory_ran_out_nothing_is_retained_until_defaults_are_restored(run_script: Run) -> None:
    start, short, after = run_script("""
        step()
        print(held())
        malloc.return_freed_memory(ran_out=True)
        malloc.retain_freed_memory()
        step()
        print(held())
        malloc.restore_defaults()
        malloc.retain_freed_memory()
        step()
        print(held())
    """)
    assert short - start < 20 * MB
    assert after - start > 190 * MB


def test_nothing_is_retained_where_a_step_takes_more_than_half_of_the_room(run_script: Run) -> None:
    start, tight = run_script("""
        torch.ones(200 * 2**20, dtype=torch.uint8)
        print(held())
        room = usage.status_bytes("VmData") + 300 * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (room, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        malloc.retain_freed_memory()
        step()
        print(held())
    """)
    assert tight - start < 20 * MB


def test_a_child_returns_its_share_of_retained_memory(run_script: Run) -> None:
    parent, child = run_script("""
        malloc.retain_freed_memory()
        step()
        print(held(), flush=True)  # else the child would print it, too
        if os.fork() == 0:
            malloc.restore_defaults()
            print(held(), flush=True)
            os._exit(0)
        os.wait()
    """)
    assert parent - child > 190 * MB


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malloc.sys, "platform", "darwin")
    monkeypatch.setattr(malloc.ctypes, "CDLL", None)
    malloc.return_freed_memory()
    malloc.retain_freed_memory()
    malloc.restore_defaults()
