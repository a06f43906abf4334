"""The list of backbones is timm's, its sizes are true, and near misses find their name."""

import random

import pytest
import timm

from lensmith.errors import ModelError
from lensmith.training.models import zoo


def names(found: list[zoo.Backbone]) -> list[str]:
    return [backbone.name for backbone in found]


def test_every_backbone_of_timm_is_listed_once_but_its_toys() -> None:
    found = names(zoo.find())
    assert sorted(found) == sorted(name for name in timm.list_models() if not name.startswith("test_"))


def test_a_backbone_says_what_one_needs_to_choose() -> None:
    found = next(one for one in zoo.find("vit_base_patch16_224") if one.name == "vit_base_patch16_224")
    assert (found.params_millions, found.image_size, found.family) == (86.57, 224, "vision_transformer")
    assert found.source == "hub timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
    assert found.as_dict()["name"] == "vit_base_patch16_224"


def test_a_pattern_is_a_glob_or_a_part_of_the_name() -> None:
    assert all("resnet" in name for name in names(zoo.find("ResNet")))
    assert set(names(zoo.find("tf_efficientnet_lite?"))) == {f"tf_efficientnet_lite{number}" for number in range(5)}
    assert "tf_efficientnet_lite0" in names(zoo.find("*lite0"))
    found = zoo.find("lite")  # those on this machine first, then the small ones
    assert found == sorted(found, key=lambda one: (not one.on_this_machine, one.params_millions, one.name))


def test_max_params_leaves_out_what_is_larger() -> None:
    found = zoo.find("resnet", max_params=12)
    assert "resnet18" in names(found)
    assert max(backbone.params_millions for backbone in found) <= 12
    with pytest.raises(ModelError, match=r"The smallest of \d+ has 5\.44 million parameters, and 1 are allowed"):
        zoo.find("resnet", max_params=1)


def test_the_sizes_on_file_are_those_of_the_networks() -> None:
    for name in ("tf_efficientnet_lite0", *random.Random(0).sample(sorted(timm.list_models()), 4)):
        assert zoo.count_parameters(name) == zoo._counted()[name], name


def test_a_backbone_that_is_not_on_file_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_counted", dict)
    (found,) = zoo.find("resnet18d")
    assert found.params_millions == 11.71


@pytest.mark.parametrize("task", list(zoo.ADVICE))
def test_advice_names_trained_backbones_best_first_with_a_reason(task: str) -> None:
    found = zoo.find(suited=task)
    assert names(found) == list(zoo.ADVICE[task])
    for backbone in found:
        assert backbone.source != "none"
        assert backbone.advice[task]


def test_a_name_is_known_with_a_tag_that_exists() -> None:
    assert zoo.is_known("resnet18")
    assert zoo.is_known("resnet18.a1_in1k")
    assert not zoo.is_known("resnet18.nonsense")
    assert not zoo.is_known("resnet-18")
    assert not zoo.is_known("")


@pytest.mark.parametrize(
    ("elsewhere", "here"),
    [
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
        ("microsoft/resnet-50", "resnet50"),
        ("hf-hub:timm/resnet18.a1_in1k", "resnet18"),
        ("mobilenet_v3_large", "mobilenetv3_large_100"),
        ("vit_b_16", "vit_base_patch16_224"),
        ("facebook/convnext-tiny-224", "convnext_tiny"),
        ("efficientnet_bo", "efficientnet_b0"),
        ("ResNet18", "resnet18"),
    ],
)
def test_a_name_from_elsewhere_finds_its_own_here(elsewhere: str, here: str) -> None:
    assert zoo.nearest(elsewhere)[0] == here


def test_every_translated_name_exists() -> None:
    assert set(zoo._ELSEWHERE.values()) <= set(timm.list_models())


def test_nothing_like_it_or_no_such_task_is_said_with_the_nearest_or_how_to_ask() -> None:
    with pytest.raises(ModelError, match=r"Did you mean resnet50"):
        zoo.find("resnet-50")
    with pytest.raises(ModelError, match="Give a part of the name"):
        zoo.find("qqqqqq")
    with pytest.raises(ModelError, match="'moon' arrived"):
        zoo.find(suited="moon")
