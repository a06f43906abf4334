"""On a real GPU, a batch that needs three times the memory that there may be leaves the same gradients."""

import gc

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from lensmith.training.microbatch.memory import MemoryCap
from lensmith.training.microbatch.microbatch import MicroBatcher, StepResult

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

IMAGES = 256


def test_under_a_third_of_the_memory_needed_the_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose ten bits would hide a fault
    torch.manual_seed(0)
    device = torch.device("cuda", 0)
    model = timm.create_model("resnet18").to(device, memory_format=torch.channels_last).eval()
    images = torch.rand(IMAGES, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (IMAGES,), device=device)

    def step() -> tuple[StepResult, list[Tensor]]:
        micro = MicroBatcher(model)
        outcome = micro.backward((images, labels), lambda x, y: F.cross_entropy(model(x), y, reduction="sum"))
        gradients = [parameter.grad.cpu() for parameter in model.parameters()]
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        return outcome, gradients

    standing = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    whole, expected = step()
    need = torch.cuda.max_memory_reserved(device)
    assert (whole.chunks, whole.retries) == (1, 0)

    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.reset_peak_memory_stats(device)
    with MemoryCap(device, (standing + (need - standing) / 3) / total) as cap:
        outcome, found = step()
        assert cap.bytes is not None
        assert torch.cuda.max_memory_reserved(device) <= cap.bytes
    assert outcome.retries
    assert 3 <= outcome.chunks <= 16
    for parameter, wanted in zip(found, expected, strict=True):
        assert (parameter - wanted).norm() <= 1e-4 * wanted.norm() + 1e-7
