"""`lensmith train` and `lensmith export` as a user calls them."""

import json
from pathlib import Path

import pytest
import torch

from lensmith.cli import main

FLAGS = ["--model", "test_resnet", "--no-pretrained", "--image-size", "32", "--workers", "0", "--batch-size", "4"]


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one call."""
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_json_is_one_object_with_the_promised_keys(
    capsys: pytest.CaptureFixture[str], colours: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, printed, _ = run(
        capsys, "train", colours, "--out", out, *FLAGS, "--epochs", 2, "--head-epochs", 1, "--max-steps", 3, "--json"
    )
    assert code == 0
    assert printed.count("\n") == 1
    result = json.loads(printed)
    assert {"run", "bundle", "best_epoch", "metrics", "images_per_second", "seconds"} <= set(result)
    assert Path(result["bundle"], "bundle.json").is_file()
    assert Path(result["run"]) == out

    code, printed, _ = run(capsys, "export", out, "--out", tmp_path / "again.zip", "--json")
    assert code == 0
    assert json.loads(printed)["parity"]["agreement"] == 1.0

    code, _, said = run(capsys, "train", colours, "--out", out, *FLAGS)
    assert code == 2
    assert "in use" in said
    code, _, said = run(capsys, "export", out)
    assert code == 2
    assert "--overwrite" in said


@pytest.mark.parametrize(
    ("case", "flags", "said"),
    [
        ("missing", [], "Nothing is there"),
        ("empty", [], "images"),
        ("one class", [], "There is one"),
        ("one image", [], "fewer in: green"),
        ("colours", ["--model", "tf_efficientnet_lit0"], "tf_efficientnet_lite0"),
        ("colours", ["--weights", "WEIGHTS"], "stem.nothing"),
        ("colours", ["--weights", "nowhere.pth"], "nowhere.pth"),
        ("colours", ["--epochs", "0"], "epochs"),
        ("colours", ["--device", "cuda:99"], "device"),
    ],
)
def test_bad_input_is_one_paragraph_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], colours: Path, tmp_path: Path, case: str, flags: list[str], said: str
) -> None:
    if case == "one image":
        for file in sorted((colours / "green").iterdir())[1:]:
            file.unlink()
    folder = {"one image": colours, "colours": colours, "one class": colours / "only"}.get(case, tmp_path / case)
    if case == "empty":
        folder.mkdir()
    if case == "one class":
        folder.mkdir()
        (colours / "red").rename(folder / "red")
    if "WEIGHTS" in flags:
        torch.save({"fc.weight": torch.zeros(3, 5), "stem.nothing": torch.zeros(2)}, tmp_path / "odd.pth")
        flags = ["--weights", str(tmp_path / "odd.pth")]
    code, printed, err = run(capsys, "train", folder, "--out", tmp_path / "run", *FLAGS, *flags)
    assert code == 2
    assert printed == ""
    assert said in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
