"""A pipeline's plan: all mistakes are reported together before anything runs; keys of the stages."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle.format import Bundle
from lensmith.errors import OutputError, SettingsError
from lensmith.workflows.pipeline.plan import PipelinePlan, make_plan

BAD = """\
name: flo wers
nmae: x
data: nowhere
check: 5
split: {ratio: 5:3}
train:
  model: test_resne
  epochs: 0
  momentun: 3
  out: x
  recipe: none.yaml
export:
  target: cup
gate:
  accuracy_dorp: 1
  min_recall: {rose: 2}
  champion: none
  size_ratio: 2
  strict: perhaps
rollout: {share: 900}
keep: 3
keep: 4
"""


def keys(made: PipelinePlan) -> dict[str, str]:
    return {name: stage.key for name, stage in made.stages.items()}


def changed(before: dict[str, str], now: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != now[name]}


def test_all_mistakes_are_reported_with_their_lines(workspace: Path) -> None:
    (workspace / "bad.yaml").write_text(BAD)
    with pytest.raises(SettingsError) as refused:
        make_plan(workspace / "bad.yaml")
    said = str(refused.value)
    for mistake in (
        r"name = 'flo wers' .*\(line 1\)", r"nmae .* name .*\(line 2\)", r"data = 'nowhere' .*\(line 3\)",
        r"check = 5 .*\(line 4\)", r"5:3:2\) \(line 5\)", r"train: model = 'test_resne' .* test_resnet",
        r"train: epochs = 0 .*\(line 8\)", r"train: momentun .* momentum .*\(line 9\)", r"train.out .*\(line 10\)",
        r"train.recipe = 'none.yaml'", r"export: target = 'cup'",
        r"gate.accuracy_dorp .* gate.accuracy_drop .*\(line 15\)", r"gate.min_recall.rose = 2 .*\(line 16\)",
        r"gate.strict = 'perhaps'", r"rollout.share = 900 .*\(line 20\)", r"keep .* twice \(line 22\)",
    ):  # fmt: skip
        assert re.search(mistake, said), mistake
    assert sorted(path.name for path in workspace.iterdir()) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "name is missing; data is missing"),
        ("- a\n- b\n", "p.yaml"),
        ("name: [\n", "while parsing"),
    ],
)
def test_a_file_of_another_form_is_refused(content: str, said: str, workspace: Path) -> None:
    (workspace / "p.yaml").write_text(content)
    with pytest.raises(SettingsError, match=said):
        make_plan(workspace / "p.yaml")
    with pytest.raises(SettingsError):
        make_plan(workspace / "none.yaml")


def test_what_contradicts_the_data_or_itself_is_refused(
    written: Callable[..., Path], parted: Callable[..., Path], workspace: Path, many_colours: Path
) -> None:
    parted(workspace / "data")
    for sections, said in (
        ({"register": False, "rollout": {}}, "rollout needs register"),
        ({"register": {"alias": "champion"}}, "register.alias = champion"),
        ({"gate": {"champion": "none", "size_ratio": 2.0}}, "gate.size_ratio"),
        ({"gate": {"min_recall": {"rose": 0.5}}}, "gate.min_recall names 'rose'"),
        ({"mapping": {"rose": "tulip"}}, "mapping names 'rose'"),
        ({"data": str(many_colours), "split": False}, "split is off"),
        ({"data": str(many_colours), "split": {"ratio": "8:2:0"}}, "test part"),
        ({"train": {"model": "test_resnet", "unfreeze_every": 1, "trainable_stages": 0}}, "unfreeze_every"),
        ({"train": {"model": "no_such_net"}}, "no_such_net"),
        ({"train": {"albumentations": "none.json"}}, "albumentations = 'none.json'"),
        ({"export": {"run": "x"}}, "export.run"),
        ({"data": 7}, "data = 7"),
        ({"exclude": "none.txt"}, "exclude = 'none.txt'"),
        ({"gate": {"accuracy_drop": False}}, "gate.accuracy_drop = False"),
        ({"gate": {"min_recall": {"red": True}}}, "yes and no are not"),
        ({"register": {"tracking_uri": "ftp://h/x"}}, "register.tracking_uri (ftp://h/x"),
        ({"gate": {"champion": "none/bundle"}}, "gate.champion = 'none/bundle'"),
    ):
        with pytest.raises(SettingsError) as refused:
            make_plan(written(**sections))
        assert said in str(refused.value)


@pytest.mark.parametrize("split", [False, ...], ids=["split off", "split on"])
def test_images_in_train_and_val_alone_are_a_layout_for_the_gate(
    written: Callable[..., Path], parted: Callable[..., Path], workspace: Path, split: Any
) -> None:
    shutil.rmtree(parted(workspace / "data") / "test")
    plan = make_plan(written(split=split))
    assert all(plan.stages[stage].on for stage in ("evaluate", "gate"))
    assert plan.images.parts == ("train", "val")


def test_settings_of_the_file_override_those_of_the_recipe(
    written: Callable[..., Path], parted: Callable[..., Path], workspace: Path
) -> None:
    parted(workspace / "data")
    (workspace / "recipe.yaml").write_text(
        "model: test_resnet\nepochs: 7\nlr: 0.5\nimage_size: 32\npretrained: false\n"
    )
    made = make_plan(written(train={"recipe": "recipe.yaml", "epochs": 3}))
    assert (made.train.epochs, made.train.lr, made.train.model) == (3, 0.5, "test_resnet")


def test_only_what_depends_on_a_change_gets_another_key(
    written: Callable[..., Path], parted: Callable[..., Path], workspace: Path, quick_settings: dict[str, object]
) -> None:
    images = parted(workspace / "data")
    before = keys(make_plan(written()))
    assert keys(make_plan(written())) == before
    assert changed(before, keys(make_plan(written(rollout={"share": 50})))) == {"rollout"}
    assert changed(before, keys(make_plan(written(gate={"min_recall": 0.2})))) == {"gate", "register", "rollout"}
    assert changed(before, keys(make_plan(written(check={"min_images": 2})))) == {"check"}
    after_training = {"train", "evaluate", "gate", "register", "rollout"}
    other = {**quick_settings, "epochs": 3, "trainable_stages": 0, "head_solver": "lbfgs"}
    assert changed(before, keys(make_plan(written(train=other)))) == after_training
    faster = {**quick_settings, "epochs": 2, "trainable_stages": 0, "head_solver": "lbfgs", "loader_workers": 1}
    assert changed(before, keys(make_plan(written(train=faster)))) == set()
    assert changed(before, keys(make_plan(written(split={"seed": 1})))) == after_training | {"split"}

    (workspace / "out.txt").write_text("train/red/red-001.png\n")
    excluded = make_plan(written(exclude="out.txt"))
    assert changed(before, keys(excluded)) == set(before) - {"export"}
    assert [path for path in (excluded.train.exclude, excluded.file.exclude) if path] == [Path("out.txt")]

    file = images / "train/red/red-000.png"
    content, times = bytearray(file.read_bytes()), file.stat()
    content[-20] ^= 1
    file.write_bytes(content)  # as many bytes, and the old date
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed(before, keys(make_plan(written()))) == set(before) - {"export"}  # which is off


def test_a_champion_with_other_labels_is_refused_before_a_training_is_spent_on_it(
    written: Callable[..., Path], parted: Callable[..., Path], relabel: Callable[..., Bundle], workspace: Path
) -> None:
    parted(workspace / "data")
    champion = relabel("blue", "green", "rot")
    gate = {"champion": str(champion.path)}
    with pytest.raises(SettingsError, match="only the new model knows red; only the champion knows rot"):
        make_plan(written(gate=gate))
    assert make_plan(written(gate=gate, mapping={"red": "rot"})).stages["gate"].on


def test_a_file_in_the_place_of_its_folder_is_refused(
    written: Callable[..., Path], parted: Callable[..., Path], workspace: Path
) -> None:
    parted(workspace / "data")
    file = written()
    with pytest.raises(OutputError):
        make_plan(file, file)


def test_a_layout_that_can_be_read_in_two_ways_is_decided_by_the_file(
    written: Callable[..., Path], many_colours: Path, workspace: Path
) -> None:
    for fold in ("fold1", "fold2"):
        for label in ("red", "blue"):
            (workspace / "folds" / fold / label).mkdir(parents=True)
            for file in sorted((many_colours / label).iterdir())[:2]:
                shutil.copy(file, workspace / "folds" / fold / label / f"{fold}{file.name}")
    folds = str(workspace / "folds")
    with pytest.raises(SettingsError, match=r"Both readings make sense.*layout in Python"):
        make_plan(written(data=folds))
    for layout, labels in (("parts", ("blue", "red")), ("classes", ("fold1", "fold2"))):
        plan = make_plan(written(data=folds, layout=layout))
        assert (plan.images.labels, plan.train.layout) == (labels, layout)
