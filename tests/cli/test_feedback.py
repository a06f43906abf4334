"""The whole way: a service keeps uploads, hears their true labels, and the verb makes an image folder of them."""

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import Run
from lensmith.bundle.format import Bundle
from lensmith.feedback import storage
from lensmith.serving.child_process import start_service


def post(url: str, path: str, body: bytes) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        assert answer.status == 200, content
        return content
    finally:
        connection.close()


@pytest.mark.slow
def test_from_uploads_to_a_folder_for_the_next_training(
    colour_bundle: Bundle, shared_colours: Path, tmp_path: Path, run: Run
) -> None:
    def as_json(*args: object) -> Any:
        code, out, err = run(*args, "--json")
        assert code == 0, err
        return json.loads(out)

    folder, out, others = tmp_path / "kept", tmp_path / "photos", tmp_path / "others"
    with start_service(colour_bundle.path, keep=folder, keep_share=1.0, deadline_ms=20_000) as service:
        names = []
        for label in ("red", "green", "blue"):
            for number in range(4):
                image = (shared_colours / label / f"{number:03d}.{'jpg' if number % 2 else 'png'}").read_bytes()
                names.append(post(service.url, "/predict", image)["request_id"])
                if number < 3:
                    body = json.dumps({"request_id": names[-1], "label": label}).encode()
                    assert post(service.url, "/feedback", body)["noted"]
    assert len(storage.stored_uploads(folder)) == 12

    shown = as_json("feedback", "show", folder)
    assert (shown["uploads"], shown["labelled"], shown["right"]) == (12, 9, 9)
    assert shown["labels"]["red"] == {"kept": 4, "random": 4, "labelled": 3}
    table = run("feedback", "show", folder)[1]
    assert "12 uploads" in table
    assert "9 have a true label" in table

    done = as_json("feedback", "export", folder, out, "--unlabelled", others)
    assert done["written"] == {"blue": 3, "green": 3, "red": 3}
    assert done["unlabelled"] == 3
    again = run("feedback", "export", folder, out)[1]
    assert "0 images added, 9 were there already" in again
    assert f"Next: lensmith review {folder} --out labels.csv" in again
    again = run("feedback", "export", folder, out, "--unlabelled", others)[1]
    assert "0 images added, 9 were there already" in again, "those in the other folder are not counted for this one"
    assert f"in {others} already: 3." in again.replace("\n", " ")

    tool = as_json("feedback", "export", folder, tmp_path / "tool", "--format", "label-studio")
    assert (tool["pictures"], tool["labelled"], tool["predicted"]) == (12, 9, 12)
    assert "Local Files" in run("feedback", "export", folder, tmp_path / "tool2", "--format", "label-studio")[1]
    code, _, err = run("feedback", "export", folder, tmp_path / "x", "--format", "cvat", "--unlabelled", others)
    assert code == 2
    assert "--unlabelled" in err

    checked = as_json("data", "check", out)
    assert (checked["usable"], checked["problems"]) == (9, 0)

    kept = sorted(folder.iterdir())
    for age in (["--all"], ["--request-id", names[0]]):  # nothing is asked on a terminal, and nothing deleted
        code, _, err = run("feedback", "clear", folder, *age)
        assert code == 2
        assert "--yes" in err
    for age in ("30", "0.5", " ", "30x"):  # which are no durations
        assert run("feedback", "clear", folder, "--older-than", age, "--yes")[0] == 2
    assert sorted(folder.iterdir()) == kept

    cleared = as_json("feedback", "clear", folder, "--request-id", names[0], "--request-id", names[1], "--yes")
    assert (cleared["removed"], cleared["left"]) == (2, 10)
    assert as_json("feedback", "clear", folder, "--older-than", "1d")["removed"] == 0
    assert as_json("feedback", "clear", folder, "--all", "--yes")["left"] == 0
    assert as_json("data", "check", out)["usable"] == 9


def test_mistakes_are_said_in_plain_words_and_exit_with_2(tmp_path: Path, run: Run) -> None:
    (tmp_path / "kept").mkdir()
    for args in (
        ("show", tmp_path / "nowhere"),
        ("export", tmp_path / "nowhere", tmp_path / "out"),
        ("export", tmp_path / "kept", tmp_path / "kept"),
        ("clear", tmp_path / "kept"),
        ("clear", tmp_path / "kept", "--older-than", "soon"),
    ):
        code, _, err = run("feedback", *args)
        assert code == 2
        assert err.startswith("lensmith: ")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_service_that_cannot_keep_says_so_and_exits_with_2(colour_bundle: Bundle, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("serve", colour_bundle.path, "--port", "0", "--keep", tmp_path / "file")
    assert code == 2
    assert "--keep" in err
