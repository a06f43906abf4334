"""`lensmith models`: a short table for people, all of it as JSON."""

import json

import pytest

from lensmith.cli import main


def run(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["models", *args])
    assert (ended.value.code or 0) == code
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_a_long_list_is_cut_with_its_count(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys)
    lines = out.splitlines()
    assert lines[0].strip().endswith("backbones")
    assert len(lines) == 43  # title, heading, 40 rows, what was cut
    assert lines[-1].startswith("… and 1,")


def test_json_holds_every_match(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "resnet", "--json")
    content = json.loads(out)
    assert content["count"] == len(content["backbones"]) > 100
    assert {"name", "params_millions", "image_size", "source", "on_this_machine"} <= content["backbones"][0].keys()


def test_advice_comes_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "--for", "edge", "--max-params", "5")
    assert "tf_efficientnet_lite0" in out
    assert "mobilenetv3_large_100" not in out
    assert "ReLU6" in out


def test_a_name_that_is_none_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "google/vit-base-patch16-224", code=2)
    assert out == ""
    assert "Did you mean vit_base_patch16_224?" in err


def test_with_json_an_error_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "qqqqqq", "--json", code=2)
    assert json.loads(out)["error"] == "ModelError"
