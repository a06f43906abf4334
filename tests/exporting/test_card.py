"""The model card says what was measured, how sure it is, and what nobody has stated."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings
from lensmith.exporting.card import front_matter, licences, recipe_of, text
from lensmith.exporting.export import ExportResult, export
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import settings_of


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    said = {"licence": "Apache-2.0", "data_licence": "drawn for this | test", "min_precision": 0.5}
    images = Run.open(trained)
    many = Path(shutil.copytree(trained, out.parent / "run"))
    description = json.loads((many / "run.json").read_text())
    description["data"]["notes"] = ["Some | note", *images.images.notes]
    (many / "run.json").write_text(json.dumps(description))
    with (many / "splits.csv").open() as file:  # all that trained it, as too few images validate to abstain on
        rows = file.read().replace(",train,", ",val,")
    (many / "splits.csv").write_text(rows)
    return export(ExportSettings(run=many, out=out, **said), quick=True)


@pytest.fixture(scope="module")
def card(exported: ExportResult) -> str:
    return (exported.bundle / "README.md").read_text(encoding="utf-8")


def sections(card: str) -> dict[str, str]:
    """Heading → what stands below it."""
    parts = re.split(r"^## (.+)$", card, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(card: str) -> list[list[list[str]]]:
    """Each table as rows of cells, as GitHub would read it."""
    blocks = re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()] for block in blocks]


@pytest.mark.slow
def test_it_has_all_that_a_card_is_to_say(card: str) -> None:
    expected = [
        "How to use it", "Data", "Classes", "How good it is", "Confidence", "Limits", "Licence", "How it was made",
        "Engines",
    ]  # fmt: skip
    assert list(sections(card)) == expected


def test_every_table_is_well_formed_whatever_its_names_hold(card: str) -> None:
    found = tables(card)
    assert len(found) >= 7
    for table in found:
        assert len({len(row) for row in table}) == 1
        assert all(re.fullmatch(r" :?-{3}:? ", cell) for cell in table[1])
        assert len(table) > 2 or "was called" in table[0][1]
    assert "drawn for this \\| test" in card
    assert "\n\n\n\n" not in card


def test_each_class_has_its_images_by_part_and_its_recall_with_an_interval(card: str, exported: ExportResult) -> None:
    classes = next(table for table in tables(card) if table[0][0].strip() == "class")
    assert [row[0].strip() for row in classes[2:]] == ["blue", "green", "red"]
    parts = [cell.strip() for cell in classes[0][1:-3]]
    assert parts == list(exported.manifest.dataset["parts"])
    totals = [sum(int(row[1 + number]) for row in classes[2:]) for number in range(len(parts))]
    assert totals == list(exported.manifest.dataset["parts"].values())
    assert all(re.fullmatch(r" \d+\.\d–\d+\.\d % ", row[-2]) for row in classes[2:])


def test_intervals_stand_in_the_manifest_too(exported: ExportResult, card: str) -> None:
    metrics = exported.manifest.metrics
    for name in ("accuracy", "f1_macro", "balanced_accuracy"):
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high
        assert f"{100 * low:.1f}–{100 * high:.1f} %" in sections(card)["How good it is"]


def test_terms_are_those_that_were_stated_and_no_others(card: str, exported: ExportResult) -> None:
    assert exported.manifest.licence == {"model": "Apache-2.0", "data": "drawn for this | test"}
    said = sections(card)["Licence"]
    assert "| this model | Apache-2.0 |" in said
    assert "| the first weights | none: they were random |" in said


@pytest.mark.slow
def test_terms_that_nobody_stated_are_not_stated_and_images_that_were_left_out_are_counted(
    trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    Run.open(run).record("left_out", path="red/000.png", reason="broken")
    made = export(ExportSettings(run=run), quick=True)
    assert made.manifest.licence == {}
    card = (made.bundle / "README.md").read_text()
    assert sections(card)["Licence"].count("not stated") == 2
    assert "license" not in yaml.safe_load(card.split("---")[1])
    assert "Every answer is given" in card
    assert "fewer than 30 images, whose recall is hardly known: blue, green, red." in card
    assert "too few images for a drift score" in card
    assert "Left out of the training, as they could not be read: 1 images." in card
    parts = {part: len(Run.open(run).images.part(part)) for part in Run.open(run).images.parts}
    [part] = [sample.part for sample in Run.open(run).images.samples if sample.path == "red/000.png"]
    assert made.manifest.dataset["parts"] == {**parts, part: parts[part] - 1}
    [classes] = [table for table in tables(card) if table[0][0].strip() == "class"]
    column = [cell.strip() for cell in classes[0]].index(part)
    assert sum(int(row[column]) for row in classes[2:]) == parts[part] - 1


@pytest.mark.parametrize(
    ("weights", "cfg", "stated"),
    [
        ("hub timm/resnet18.a1_in1k", {"license": "apache-2.0"}, "apache-2.0"),
        ("hub timm/resnet18.a1_in1k", {"license": "unknown"}, None),
        ("hub timm/resnet18.a1_in1k", {}, None),
        ("url https://example.org/weights.pth", {"license": "mit"}, "mit"),
        ("pip package some-weights 1.0", {"license": "apache-2.0"}, None),
        ("file mine.pth", {"license": "apache-2.0"}, None),
        ("random", {"license": "apache-2.0"}, None),
    ],
)
def test_terms_of_first_weights_are_timms_only_where_the_weights_are(
    weights: str, cfg: dict[str, Any], stated: str | None
) -> None:
    assert licences(None, None, weights, cfg).get("first_weights") == stated


def test_hubs_read_its_front_matter(card: str, exported: ExportResult) -> None:
    read = ModelCard(card).data
    assert (read.license, read.pipeline_tag, read.library_name) == ("apache-2.0", "image-classification", "lensmith")
    assert read.model_name == exported.manifest.name
    assert read.eval_results is not None
    results = {result.metric_type: result for result in read.eval_results}
    assert set(results) == {"accuracy", "f1"}
    assert results["accuracy"].metric_value == round(exported.evaluation.metrics.accuracy, 4)
    assert (results["accuracy"].dataset_name, results["accuracy"].dataset_split) == ("colours", "validation")


def test_terms_that_hubs_do_not_know_are_other_and_a_hubs_weights_are_the_base(exported: ExportResult) -> None:
    manifest = exported.manifest.model_copy(
        update={
            "licence": {"model": "Ours alone"},
            "recipe": {**exported.manifest.recipe, "initial_weights": "hub timm/resnet18.a1_in1k"},
        }
    )
    found = front_matter(manifest, exported.evaluation)
    assert (found["license"], found["license_name"]) == ("other", "Ours alone")
    assert found["base_model"] == "timm/resnet18.a1_in1k"


def test_its_recipe_gives_the_settings_of_the_run_again(trained: Path, card: str) -> None:
    run = Run.open(trained)
    written = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert written == recipe_of(run.settings)
    again = settings_of({"data": run.settings.data}, written)
    kept = {"out", "loader_workers", "device", "processes", "tracking", "cache_gb", "save_minutes"}
    assert again.model_dump(exclude=kept) == run.settings.model_dump(exclude=kept)


@pytest.mark.slow
def test_a_run_whose_events_are_gone_has_a_card_all_the_same(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "events.jsonl").unlink()
    export(ExportSettings(run=run), quick=True)
    assert "| phase |" not in (run / "bundle" / "README.md").read_text()
    assert Bundle.load(run / "bundle").manifest.reference is not None


def test_text_says_what_it_says() -> None:
    assert text("a|b\n<c> `d` [e](f)") == "a\\|b \\<c\\> \\`d\\` \\[e\\](f)"
    assert text("__init__ of tf_net_1, R&amp;D") == "\\_\\_init\\_\\_ of tf_net_1, R\\&amp;D"
