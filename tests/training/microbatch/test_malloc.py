"""Freed memory is kept for the next step, apart, or given back: for real, in processes of their own."""

import subprocess
import sys
import textwrap

import pytest

from lensmith.training.microbatch import malloc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt and /proc are Linux's")

MB = 2**20


def run(script: str) -> list[int]:
    """Numbers that a process of its own prints, whose `step` takes and frees 200 MB and tells the page faults."""
    head = """
        import os, resource, torch
        from lensmith.training.microbatch import malloc, usage
        torch.set_num_threads(1)
        held = lambda: usage.status_bytes("VmRSS")

        def step():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            tensors = [torch.ones(50 * 2**20, dtype=torch.uint8) for _ in range(4)]
            small = torch.ones(100)
            del tensors
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_a_step_that_is_like_the_last_one_gets_no_new_pages() -> None:
    apart, first, kept, again = run("""
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
    assert apart > 0.9 * pages
    assert first > 0.9 * pages
    assert kept < 0.01 * pages
    # What the heap has is used first, also by blocks that would be mappings of their own; then it goes back.
    assert again > 0.9 * pages


def test_what_was_kept_goes_back() -> None:
    start, kept, usual, later = run("""
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
    assert kept - start > 190 * MB
    assert usual - start < 20 * MB
    assert later - start < 20 * MB


def test_after_memory_ran_out_nothing_is_kept_until_all_is_as_usual() -> None:
    start, short, after = run("""
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


def test_nothing_is_kept_where_a_step_takes_more_than_half_of_the_room() -> None:
    start, tight = run("""
        torch.ones(200 * 2**20, dtype=torch.uint8)
        print(held())
        room = usage.status_bytes("VmData") + 300 * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (room, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        malloc.retain_freed_memory()
        step()
        print(held())
    """)
    assert tight - start < 20 * MB


def test_a_child_gives_its_share_of_what_is_kept_back() -> None:
    parent, child = run(
        """
        malloc.retain_freed_memory()
        step()
        print(held())
        if os.fork() == 0:
            malloc.restore_defaults()
            print(held())
            os._exit(0)
        os.wait()
    """.replace("print(held())", "print(held(), flush=True)")
    )
    assert parent - child > 190 * MB


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malloc.sys, "platform", "darwin")
    monkeypatch.setattr(malloc.ctypes, "CDLL", None)
    malloc.return_freed_memory()
    malloc.retain_freed_memory()
    malloc.restore_defaults()
