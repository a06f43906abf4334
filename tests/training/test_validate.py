"""Validation answers for every readable image, and leaves the model as it was."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from sklearn.metrics import f1_score
from torch import nn

from lensmith.data.split import prepare
from lensmith.errors import DataError
from lensmith.evaluation.confidence import supported_confidence
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.validate import ModelOutputs, compute_outputs

CPU = torch.device("cpu")


def model() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("test_resnet", num_classes=3, drop_rate=0.5)
    return made


def judge(network: nn.Module, folder: Path, size: int = 5, lost: Sequence[str] = ()) -> ModelOutputs:
    """The network's outputs for all images, of which some become unreadable after they were listed."""
    found = prepare(folder, (5, 3, 2), 0)
    for path in lost:
        (folder / path).write_bytes(b"broken")
    images = ImageDataset(found, found.samples, Preprocessing(image_size=32), None, 0)
    return compute_outputs(network, build_loader(images, EpochSampler(len(images), size, None), 0, CPU), CPU)


def test_answers_do_not_depend_on_the_batch_size(shared_colours: Path) -> None:
    one, many = judge(model(), shared_colours, 1), judge(model(), shared_colours, 24)
    assert torch.allclose(one.logits, many.logits, atol=1e-5)
    assert one.indices == many.indices == list(range(24))
    assert one.loss == pytest.approx(nn.functional.cross_entropy(many.logits, many.labels).item(), abs=1e-5)
    assert one.accuracy == pytest.approx((many.logits.argmax(1) == many.labels).double().mean().item())


def test_the_model_s_modes_and_statistics_are_as_before(shared_colours: Path) -> None:
    network = model().train()
    network.bn1.eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    judge(network, shared_colours)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_unreadable_image_is_left_out_and_named(colours: Path) -> None:
    found = judge(model(), colours, lost=("green/003.jpg",))
    assert [path for path, _ in found.unreadable] == ["green/003.jpg"]
    assert len(found.logits) == len(found.labels) == len(found.indices) == 23
    assert 11 not in found.indices


def test_nothing_to_judge_by_is_an_error_of_the_data(colours: Path) -> None:
    every = [file.relative_to(colours).as_posix() for file in colours.rglob("*.*")]
    with pytest.raises(DataError, match=r"None of 24 can; the first, blue/000\.png: It "):
        judge(model(), colours, lost=every)


def test_an_epoch_is_scored_by_what_is_monitored() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    said = torch.tensor([0] * 8 + [0, 1])
    found = ModelOutputs(4 * nn.functional.one_hot(said, 2).float(), labels, list(range(10)), [])
    assert found.score("accuracy") == pytest.approx(0.9)
    assert found.score("balanced_accuracy") == pytest.approx((1 + 0.5) / 2)
    assert found.score("f1") == pytest.approx(f1_score(labels, said, average="macro"))
    assert found.score("loss") == -found.loss < 0


@pytest.mark.parametrize(("images", "classes"), [(1, 2), (9, 3), (98, 10)])
def test_the_smoothed_loss_is_least_at_the_confidence_that_so_many_images_support(images: int, classes: int) -> None:
    labels = torch.arange(images) % classes

    def at(confidence: float) -> ModelOutputs:
        rest = (1 - confidence) / (classes - 1)
        return ModelOutputs((nn.functional.one_hot(labels, classes) * (confidence - rest) + rest).log(), labels, [], [])

    best = supported_confidence(images)
    assert at(best).smoothed_loss < min(at(best - 1e-3).smoothed_loss, at(best + 1e-3).smoothed_loss)
    assert at(1 - 1e-6).loss < at(best).loss  # which the plain loss would rather have
