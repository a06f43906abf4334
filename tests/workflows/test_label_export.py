"""`lensmith data export` from the command line, with a real bundle's answers."""

import json
import shutil
from pathlib import Path

from fixtures.command_line import Run
from lensmith.bundle.format import Bundle


def test_unlabelled_pictures_get_the_answers_of_a_bundle(
    colour_bundle: Bundle, shared_colours: Path, tmp_path: Path, run: Run
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for colour in ("red", "green", "blue"):
        shutil.copy(shared_colours / colour / "000.png", photos / f"{colour}.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, out, err = run(
        "data", "export", photos, "--out", tmp_path / "ls", "--predictions", colour_bundle.path, "--json"
    )
    assert code == 0, err
    done = json.loads(out)
    assert (done["pictures"], done["labelled"], done["predicted"]) == (3, 0, 3)
    assert done["labels"] == {"blue": 0, "green": 0, "red": 0}
    assert [path for path, _ in done["set_aside"]] == ["broken.png"]
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text(encoding="utf-8"))
    for task in tasks:
        (answer,) = task["predictions"]
        assert answer["result"][0]["value"]["choices"] == [Path(task["data"]["image"]).stem]
        assert answer["model_version"] == "colours 1"
        assert 0.5 < answer["score"] <= 1

    code, _, err = run(
        "data", "export", photos, "--format", "imagenet", "--out", tmp_path / "i", "--predictions", colour_bundle.path
    )
    assert code == 2
    assert "label-studio, cvat or coco" in err


def test_crops_get_answers_of_their_own(colour_bundle: Bundle, shared_colours: Path, tmp_path: Path, run: Run) -> None:
    shutil.copy(shared_colours / "red" / "000.png", tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text('path,label\n"a.png#xywh=0,0,8,8",green\n"a.png#xywh=8,8,8,8",red\n')
    code, out, err = run(
        "data",
        "export",
        tmp_path / "boxes.csv",
        "--format",
        "cvat",
        "--out",
        tmp_path / "cvat",
        "--predictions",
        colour_bundle.path,
    )
    assert code == 0, err
    assert "1 with an answer of the model" in out
    assert "answers of the model for pictures that have a label" in out
    assert (tmp_path / "cvat" / "annotations.xml").read_text(encoding="utf-8").count("<box ") == 2
