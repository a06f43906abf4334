"""`lensmith train` and `lensmith export` as a user calls them."""

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.command_line import Run
from lensmith.bundle.format import GRAPH, MANIFEST
from lensmith.training.learner import Learner
from lensmith.workflows import train_and_export

FLAGS = ["--model", "test_resnet", "--no-pretrained", "--image-size", "32", "--loader-workers", "0"]
FLAGS += ["--batch-size", "4", "--head-solver", "minibatch", "--cache-gb", "0"]


@pytest.mark.parametrize(
    ("case", "flags", "said"),
    [
        ("missing", [], "Nothing is there"),
        ("one image", [], "fewer in: green"),
        ("colours", ["--model", "tf_efficientnet_lit0"], "tf_efficientnet_lite0"),
        ("colours", ["--weights", "WEIGHTS"], "stem.nothing"),
        ("colours", ["--weights", "nowhere.pth"], "nowhere.pth"),
        ("colours", ["--epochs", "0"], "epochs"),
        ("colours", ["--device", "cuda:99"], "device"),
    ],
)
def test_bad_input_is_one_paragraph_and_leaves_nothing(
    run: Run, colours: Path, tmp_path: Path, case: str, flags: list[str], said: str
) -> None:
    if case == "one image":
        for file in sorted((colours / "green").iterdir())[1:]:
            file.unlink()
    folder = tmp_path / "missing" if case == "missing" else colours
    if "WEIGHTS" in flags:
        torch.save({"fc.weight": torch.zeros(3, 5), "stem.nothing": torch.zeros(2)}, tmp_path / "odd.pth")
        flags = ["--weights", str(tmp_path / "odd.pth")]
    code, printed, err = run("train", folder, "--out", tmp_path / "run", *FLAGS, *flags)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_same_line_again_and_again_begins_goes_on_exports_and_is_done(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    line = ["train", colours, "--out", out, *FLAGS, "--epochs", 2, "--head-epochs", 1, "--resume", "auto", "--json"]
    plain, steps = Learner.training_step, itertools.count()

    def stop_once(*given: Any) -> Any:
        if next(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given)

    monkeypatch.setattr(Learner, "training_step", stop_once)
    code, printed, _ = run(*line)
    assert (code, json.loads(printed)["error"]) == (75, "RunInterruptedError")

    code, printed, _ = run(*line)
    first = json.loads(printed)
    assert (code, first["steps"], first["already"]) == (0, 6, False)
    assert next(steps) == 6  # none was taken twice
    assert printed.count("\n") == 1
    assert {"best_epoch", "metrics", "images_per_second", "seconds"} <= set(first)
    assert (Path(first["run"]), Path(first["bundle"])) == (out, out / "bundle")

    exported = (out / "bundle/bundle.json").read_bytes()
    code, printed, _ = run(*line)
    again = json.loads(printed)
    assert (code, again["already"]) == (0, True)
    assert {**again, "seconds": 0, "already": False} == {**first, "seconds": 0}
    assert (out / "bundle/bundle.json").read_bytes() == exported

    code, printed, _ = run(*line[:-1])
    assert "is finished and exported" in printed

    for flags, difference in (
        ([*line[1:], "--lr", 0.01], "lr: 0.001 in the run, 0.01 now"),
        (["--resume", out, "--epochs", 9], "epochs: 2 in the run, 9 now"),
        ([colours, "--out", out, *FLAGS], "in use"),
    ):
        code, _, said = run("train", *flags)
        assert code == 2
        assert difference in said
    code, printed, _ = run("train", "--resume", out, "--epochs", 2, "--loader-workers", 1, "--json")
    assert (code, json.loads(printed)["already"]) == (0, True)
    code, _, said = run("export", out)
    assert code == 2
    assert "--overwrite" in said

    exports: list[Path] = []

    def export(settings: Any, quick: bool) -> Any:
        exports.append(settings.run)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_and_export, "export", export)
    manifest = out / "bundle" / MANIFEST
    manifest.write_bytes(exported.replace(b'"best_epoch": ', b'"best_epoch": 7'))  # of an earlier best epoch
    assert run(*line)[0] == 130
    manifest.write_bytes(exported)
    (out / "bundle" / GRAPH).unlink()
    assert run(*line)[0] == 130
    assert exports == [out, out]
