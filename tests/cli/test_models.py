"""`lensmith models`: a short table for people, all of it as JSON."""

import json

from fixtures.command_line import Run


def test_a_long_list_is_cut_with_its_count(run: Run) -> None:
    _, out, _ = run("models")
    lines = out.splitlines()
    assert lines[0].strip().endswith("backbones")
    assert len(lines) == 43  # title, heading, 40 rows, what was cut
    assert lines[-1].startswith("… and 1,")


def test_json_holds_every_match(run: Run) -> None:
    _, out, _ = run("models", "resnet", "--json")
    content = json.loads(out)
    assert content["count"] == len(content["backbones"]) > 100
    assert {"name", "params_millions", "image_size", "source", "on_this_machine"} <= content["backbones"][0].keys()


def test_advice_comes_with_reasons(run: Run) -> None:
    _, out, _ = run("models", "--for", "edge", "--max-params", "5")
    assert "tf_efficientnet_lite0" in out
    assert "mobilenetv3_large_100" not in out
    assert "ReLU6" in out


def test_a_name_that_is_none_offers_the_nearest(run: Run) -> None:
    code, out, err = run("models", "google/vit-base-patch16-224")
    assert (code, out) == (2, "")
    assert "Did you mean vit_base_patch16_224?" in err


def test_with_json_an_error_is_json_too(run: Run) -> None:
    code, out, _ = run("models", "qqqqqq", "--json")
    assert code == 2
    assert json.loads(out)["error"] == "ModelError"
