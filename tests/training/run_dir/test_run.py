"""A run folder is read back as it was made, and a place that is taken or damaged is told apart."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lensmith.config import TrainSettings
from lensmith.data.scan import scan
from lensmith.data.split import prepare
from lensmith.errors import OutputError, RunError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.run_dir.description import DESCRIPTION
from lensmith.training.run_dir.run import Run, default_folder

HOW = Preprocessing(
    image_size=32, resize="letterbox", crop_fraction=1.0, interpolation="bilinear", mean=(0.1, 0.2, 0.3)
)


def make(data: Path, path: Path, **settings: Any) -> Run:
    chosen = TrainSettings.model_validate({"data": data, "lr": 0.003, "weights": "own.pth", **settings})
    return Run.create(path, chosen, prepare(data, (5, 3, 2), 0), HOW, "file own.pth")


@pytest.fixture
def made(shared_colours: Path, tmp_path: Path) -> Run:
    """A run folder of the colours."""
    return make(shared_colours, tmp_path / "run")


def test_what_was_made_is_opened(shared_colours: Path, tmp_path: Path) -> None:
    made = make(shared_colours, tmp_path / "deep" / "run", split="7:2:1")
    opened = Run.open(made.path)
    assert replace(opened, images=made.images) == made
    assert (opened.images.labels, opened.images.samples) == (made.images.labels, made.images.samples)
    assert opened.images.notes == made.images.notes
    assert opened.images.fingerprint == opened.fingerprint


def test_names_with_commas_quotes_and_newlines_survive(shared_colours: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label, colour in zip(('a "b", c', "line\nfeed", "ünï"), ("blue", "green", "red"), strict=True):
        (data / label).mkdir(parents=True)
        for name, picture in zip(("1,2.png", "x\ny.png", "z.png"), ("000.png", "002.png", "004.png"), strict=True):
            shutil.copy(shared_colours / colour / picture, data / label / name)
    made = make(data, tmp_path / "run")
    assert Run.open(made.path).images.samples == made.images.samples


def test_paths_are_relative_to_where_the_data_lies_not_to_where_one_stands(
    shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared_colours.parent)
    made = make(Path(shared_colours.name), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert Run.open(made.path).images.fingerprint == made.fingerprint


def test_a_change_in_the_data_shows_in_the_fingerprint(colours: Path, tmp_path: Path) -> None:
    made = make(colours, tmp_path / "run")
    (colours / "red" / "000.png").write_bytes(b"shorter")
    assert Run.open(made.path).images.fingerprint != made.fingerprint


@pytest.mark.parametrize("what", ["a file", "a folder with something in it"])
def test_a_place_in_use_is_refused_and_left_as_it_is(shared_colours: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "run"
    mine = path if what == "a file" else path / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match=r"It is in use.*--out"):
        make(shared_colours, path)
    assert mine.read_text() == "mine"
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [mine]


def test_an_empty_folder_is_no_obstacle(shared_colours: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert (make(shared_colours, tmp_path / "run").path / DESCRIPTION).is_file()


def without(content: dict[str, Any], *path: str) -> str:
    *parents, last = path
    inner = content
    for name in parents:
        inner = inner[name]
    del inner[last]
    return json.dumps(content)


@pytest.mark.parametrize(
    ("file", "damaged"),
    [
        (DESCRIPTION, lambda text: None),
        (DESCRIPTION, lambda text: text[:100]),
        (DESCRIPTION, lambda text: "[1, 2]"),
        (DESCRIPTION, lambda text: without(json.loads(text), "settings", "data")),
        (DESCRIPTION, lambda text: json.dumps({**json.loads(text), "labels": ["blue", "green"]})),
        ("splits.csv", lambda text: None),
        ("splits.csv", lambda text: "path,label,split\n\0\udcff\udcfe"),
        ("splits.csv", lambda text: "path,label\nred/000.png,red\n"),
        ("splits.csv", lambda text: "path,label,split,bytes\nred/000.png,red,train,many\n"),
    ],
)
def test_a_damaged_folder_is_refused(made: Run, file: str, damaged: Callable[[str], str | None]) -> None:
    path = made.path / file
    content = damaged(path.read_text())
    path.unlink()
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=r"It is not whole|It holds no run"):
        Run.open(path.parent)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is none"):
        Run.open(tmp_path / "nowhere")


def test_the_history_is_the_last_line_of_each_epoch_and_passes_over_a_torn_one(made: Run) -> None:
    assert made.history() == []
    lines = [
        {"event": "start"}, {"event": "epoch", "epoch": 1, "loss": 3}, {"event": "epoch", "epoch": 2, "loss": 2},
        {"event": "resume"}, {"event": "epoch", "epoch": 2, "loss": 1},
    ]  # fmt: skip
    texts = [json.dumps(line) for line in lines]
    texts[3] = '{"event": "epoch", "epo' + texts[3]
    made.events.write_text("\n".join(texts) + '\n{"event": "epoch", "epoch": 3, "lo')
    assert [(line["epoch"], line["loss"]) for line in made.history()] == [(1, 3), (2, 1)]
    with made.events.open("ab") as file:
        file.write(b"\x00\xff\xfe")
    assert len(made.history()) == 2


def test_an_event_begins_on_a_line_of_its_own(made: Run) -> None:
    made.record("first", step=1)
    with made.events.open("a") as file:
        file.write('{"event": "epo')
    made.record("second", step=2)
    assert [(line["event"], line["step"]) for line in made.read_events("first", "second")] == [
        ("first", 1), ("second", 2),
    ]  # fmt: skip


def test_what_may_change_is_written_down_and_the_rest_stays(made: Run, tmp_path: Path) -> None:
    before = json.loads((made.path / DESCRIPTION).read_text())
    elsewhere = tmp_path / "elsewhere"
    now = made.with_settings(made.settings.model_copy(update={"loader_workers": 3}), elsewhere, elsewhere)
    assert Run.open(made.path).settings == now.settings
    assert Run.open(made.path).source == Run.open(made.path).images.root == now.images.root == elsewhere
    after = json.loads((made.path / DESCRIPTION).read_text())
    assert after["settings"].pop("loader_workers") == 3
    before["settings"].pop("loader_workers")
    after["data"].update(root=before["data"]["root"], source=before["data"]["source"])
    assert after == before


def test_the_default_folder_names_data_and_model(tmp_path: Path) -> None:
    for data in (tmp_path / "photos", tmp_path / "photos.csv"):
        folder = default_folder(TrainSettings(data=data, model="test_vit"))
        assert folder.parent == Path("runs")
        assert folder.name.startswith("photos-test_vit-20")


def test_a_folder_that_could_not_be_finished_is_removed(
    shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> dict[str, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lensmith.training.run_dir.description.installed_versions", full)
    with pytest.raises(OSError, match="No space"):
        make(shared_colours, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_may_lie_beside_a_table_and_among_its_images_but_not_in_an_image_folder(colours: Path) -> None:
    rows = (f"{file.relative_to(colours).as_posix()},{file.parent.name}" for file in sorted(colours.glob("*/*")))
    (colours / "parts.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    for out in (colours / "runs/one", colours / "red/run"):
        assert make(colours / "parts.csv", out).path == out
    images = scan(colours)  # in which the runs are no classes, and no images of one
    assert images.labels == ("blue", "green", "red")
    assert len(images.samples) == 24
    with pytest.raises(OutputError, match="outside the images"):
        make(colours, colours / "runs/two")


def test_contested_images_are_in_the_description_and_read_back(colours: Path, tmp_path: Path) -> None:
    files = sorted(file.relative_to(colours).as_posix() for file in colours.glob("*/*.*"))
    lines = [f"{file},{file.split('/')[0]},anna" for file in files] + [f"{files[0]},red,bert"]
    (colours / "votes.csv").write_text("\n".join(["path,label,annotator", *lines]) + "\n", encoding="utf-8")
    made = make(colours / "votes.csv", tmp_path / "run")
    (contested,) = json.loads((made.path / DESCRIPTION).read_text(encoding="utf-8"))["data"]["contested"]
    assert (contested["path"], contested["votes"]) == (files[0], {"blue": 1, "red": 1})
    opened = Run.open(made.path)
    assert opened.images.contested == made.images.contested
    assert any(f"do not agree: 1 ({files[0]})" in note for note in opened.images.notes)
