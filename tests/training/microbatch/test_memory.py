"""Memory that runs out is recognised, given back, capped and measured: on a CPU for real, in processes of their own."""

import errno
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lensmith.training.microbatch import memory
from lensmith.training.microbatch.memory import TooLargeError, is_out_of_memory, retry_out_of_memory

CPU = torch.device("cpu")
Run = Callable[[str], list[Any]]
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc are Linux's")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of …"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory: you tried to …"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.00 GB)"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:30]}",
)
def test_memory_that_ran_out_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed."),
        ValueError("a file named 'out of memory.jpg'"),
        OSError(errno.ENOSPC, "No space left on device"),
        TooLargeError("What fits was expected.", "Memory ran out (CUDA out of memory).", "Use less."),
        KeyboardInterrupt("out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:30]}",
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.usefixtures("_little_to_collect")
def test_what_runs_out_is_tried_again_and_then_given_up() -> None:
    left = [MemoryError(), MemoryError()]

    def action() -> int:
        if left:
            raise left.pop()
        return 7

    assert retry_out_of_memory(action, CPU, "the optimizer's state") == 7
    left += [MemoryError("no room")] * memory.TRIES
    with pytest.raises(TooLargeError, match=r"Memory for the optimizer's state was expected.*\(no room\)"):
        retry_out_of_memory(action, CPU, "the optimizer's state")

    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        retry_out_of_memory(fails, CPU, "a wrong value")


@linux
def test_under_a_cap_too_much_raises_and_afterwards_the_limit_is_as_before(run_script: Run) -> None:
    printed = run_script("""
        before = resource.getrlimit(resource.RLIMIT_DATA)
        with memory.MemoryCap(cpu, fraction=0.2) as cap:
            free = usage.free_bytes()
            assert resource.getrlimit(resource.RLIMIT_DATA) == (cap.bytes, before[1])
            assert cap.bytes - usage.status_bytes("VmData") < 0.25 * free
            torch.empty(2**28, dtype=torch.uint8)
            try:
                torch.empty(int(0.3 * free), dtype=torch.uint8)
            except Exception as error:
                print(memory.is_out_of_memory(error), type(error).__name__)
            with memory.MemoryCap(cpu, fraction=0.9) as wider:  # what is there already is not widened
                assert wider.bytes == cap.bytes
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        torch.empty(int(0.3 * free), dtype=torch.uint8)
    """)
    assert printed == ["True", "RuntimeError"]


@linux
def test_processes_share_the_memory_and_a_child_can_lift_the_cap(run_script: Run) -> None:
    printed = run_script("""
        with memory.MemoryCap(cpu, fraction=0.4, processes=4) as cap:
            room = cap.bytes - usage.status_bytes("VmData")
            print(0.05 < room / usage.free_bytes() < 0.15)
            if os.fork() == 0:
                memory.lift_cap()
                soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
                os._exit(0 if soft == hard else 1)
            print(os.wait()[1] == 0, resource.getrlimit(resource.RLIMIT_DATA)[0] == cap.bytes)
    """)
    assert printed == ["True"] * 3


@linux
def test_the_peak_is_of_the_time_since_it_was_last_taken(run_script: Run) -> None:
    low, high, again = run_script("""
        usage.read_and_reset_peak(cpu)
        print(usage.read_and_reset_peak(cpu))
        torch.ones(2**28, dtype=torch.uint8)
        print(usage.read_and_reset_peak(cpu))
        print(usage.read_and_reset_peak(cpu))
    """)
    assert high - low > 0.95 * 2**28
    assert high - again > 0.95 * 2**28


@linux
def test_blocks_that_are_freed_after_a_failure_go_back_to_the_system(run_script: Run) -> None:
    """Of 20 MB each, which the C library keeps in its heap once it has seen that such blocks come and go."""
    before, after = run_script("""
        def left():  # MB still held after every second of 20 blocks is freed, with small ones in between them
            start, blocks, small = usage.status_bytes("VmRSS"), [], []
            for _ in range(20):
                blocks.append(torch.ones(20 * 2**20, dtype=torch.uint8))
                small.append(torch.ones(100))
            del blocks[::2]
            held = usage.status_bytes("VmRSS") - start
            return held // 2**20
        torch.ones(30 * 2**20, dtype=torch.uint8)  # freed: from now on blocks up to this size are the heap's
        print(left())
        memory.release(cpu)
        print(left())
    """)
    assert before > 350
    assert after < 250
