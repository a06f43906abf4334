"""The label doctor on drawn features and pictures: planted errors are found, clean labels are left alone."""

import csv
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.browser import require_readable
from fixtures.drawn_features import drawn, planted
from fixtures.pictures import patches
from lensmith.cli import main
from lensmith.config import LabelDoctorSettings, TrainSettings
from lensmith.curation import discriminant, doctor_files, findings, label_doctor
from lensmith.curation.diagnose import diagnose
from lensmith.curation.discriminant import FeatureRows, fit_discriminant, moments_by_part, stratified_folds
from lensmith.curation.doctor_page import render
from lensmith.curation.label_noise import fit_noise
from lensmith.curation.label_summary import summarize
from lensmith.curation.out_of_fold import evaluate_labels
from lensmith.data.corrections import from_files
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.scan import scan
from lensmith.errors import DataError, OutputError
from lensmith.training.feature_cache.feature_batches import Features


def test_planted_errors_come_first_and_clean_labels_raise_no_alarm() -> None:
    values, truth = drawn(spread=1.6)
    labels, bad = planted(truth, 30)
    found = evaluate_labels(FeatureRows(values), labels, 6)
    first = np.argsort(-found.wrong)[: len(labels) // 10]
    assert bad[first].sum() >= 28
    assert (found.wrong[~bad] >= findings.FLAGGED).mean() < 0.05
    assert (found.other[bad] == truth[bad]).mean() > 0.9
    assert found.wrong.sum() == pytest.approx(30, abs=10)


def test_a_clean_set_has_hardly_a_suspect_even_where_classes_overlap() -> None:
    values, labels = drawn(spread=4.0)
    found = evaluate_labels(FeatureRows(values), labels, 6)
    assert (found.other_probability > found.own).mean() > 0.03  # heads err, and yet
    assert (found.wrong >= findings.FLAGGED).mean() < 0.02


def test_wrong_labels_of_a_similar_class_are_listed_and_not_flagged() -> None:
    """Pairs of classes that overlap as shirts and pullovers do: no figure tells a wrong label from a hard picture."""
    values, truth = drawn(classes=8, per_class=100, spread=1.6)
    values[truth % 2 == 1] = values[truth % 2 == 1] * 0.4 + values[truth % 2 == 0] * 0.6
    rows = np.random.default_rng(2).choice(len(truth), 40, replace=False)
    labels = truth.copy()
    labels[rows] = truth[rows] ^ 1
    samples = [Sample(f"{row}.png", int(label)) for row, label in enumerate(labels)]
    images = ImageSet(Path(), tuple("abcdefgh"), tuple(samples))
    found = findings.suspects_of(images, samples, evaluate_labels(FeatureRows(values), labels, 8))
    listed = [int(each.path[:-4]) for each in found]
    assert len(listed) <= 80
    assert np.isin(rows, listed).mean() > 0.8
    assert sum(each.flagged for each in found) < 40


def test_tiny_classes_are_not_evaluated_and_imbalance_accuses_no_rare_class() -> None:
    values, labels = drawn(classes=5, per_class=200, spread=1.6)
    kept = np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate((200, 200, 12, 2, 1))])
    found = evaluate_labels(FeatureRows(values[kept]), labels[kept], 5)
    assert found.evaluated.tolist() == [True, True, True, False, False]
    assert not found.wrong[labels[kept] > 2].any()
    assert (found.wrong[labels[kept] == 2] >= findings.LIKELY).sum() <= 1
    assert np.isfinite(found.own).all()


def test_many_small_classes_and_wide_features_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminant, "MOST_FEATURES", 64)
    values, labels = drawn(classes=200, per_class=5, features=48)
    wide = np.tile(values, 3).astype(np.float16)
    rows = FeatureRows(wide)
    assert rows.features == 64
    found = evaluate_labels(rows, labels, 200)
    assert (found.own > found.other_probability).mean() > 0.9


def test_heads_equal_scikit_learns_with_the_same_shrinkage() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    values, labels = drawn(classes=3, per_class=40, features=8)
    rows = FeatureRows(values)
    scaled = next(rows.blocks())[1]
    head = fit_discriminant(moments_by_part(rows, labels, 3, np.zeros_like(labels), 1)[0], 0.3)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(scaled, labels)
    ours = head.logits(scaled)
    expected = theirs.decision_function(scaled)
    assert (theirs.predict(scaled) == ours.argmax(axis=1)).all()
    assert np.corrcoef((ours - ours.mean(axis=1, keepdims=True)).ravel(),
                       (expected - expected.mean(axis=1, keepdims=True)).ravel())[0, 1] > 0.999  # fmt: skip


def test_sums_without_a_fold_are_those_of_the_other_rows() -> None:
    values, labels = drawn(classes=3, per_class=20, features=5)
    rows, folds = FeatureRows(values), stratified_folds(labels, 4, seed=0)
    parts = moments_by_part(rows, labels, 3, folds, 4)
    rest = parts[0] + parts[1] + parts[2] + parts[3] - parts[2]
    direct = moments_by_part(rows, labels, 3, np.where(folds == 2, -1, 0), 1)[0]
    for ours, theirs in zip(vars(rest).values(), vars(direct).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_folds_spread_classes_evenly_and_part_no_group() -> None:
    labels = np.repeat(np.arange(4), (50, 20, 3, 1))
    sizes = np.bincount(stratified_folds(labels, 5, seed=3), minlength=5)
    assert sizes.max() - sizes.min() <= 1
    groups = [f"g{row // 3}" if row % 2 else "" for row in range(len(labels))]
    folds = stratified_folds(labels, 5, seed=3, groups=groups)
    for group in set(groups) - {""}:
        assert len({fold for fold, mine in zip(folds.tolist(), groups, strict=True) if mine == group}) == 1
    assert np.bincount(folds, minlength=5).min() >= 10


def test_the_noise_model_recovers_temperature_and_rate() -> None:
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((4000, 5))).astype(np.float32)
    powers = np.exp(logits / 2)
    truth = (powers.cumsum(axis=1) / powers.sum(axis=1, keepdims=True) < rng.random((4000, 1))).sum(axis=1)
    noisy = np.where(rng.random(4000) < 0.1, rng.integers(0, 5, 4000), truth)
    found = fit_noise(logits, noisy)
    assert found.temperature == pytest.approx(2, rel=0.15)
    assert found.rate == pytest.approx(0.1, abs=0.03)
    assert fit_noise(logits, truth).rate < 0.02
    assert found.wrong(np.array([0.0, 1.0]), 5).tolist() == [pytest.approx(1), 0]


@pytest.fixture
def drawn_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """A folder of 3 × 30 pictures with drawn features, six wrong labels and one unreadable picture."""
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    values, truth = drawn(classes=3, per_class=30, features=16)
    labels, bad = planted(truth, 6)
    names = ("a<b", "kiwi", "plum")
    root = tmp_path / "fruit & more"
    samples = []
    for row, label in enumerate(labels.tolist()):
        path = root / names[label] / f"{'bad' if bad[row] else 'good'}-{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        patches(row, 24).save(path)
        samples.append(Sample(path.relative_to(root).as_posix(), label))
    values[-1] = np.nan
    features = Features(values.astype(np.float16), {len(values) - 1: "It is damaged."})
    by_path = {sample.path: row for row, sample in enumerate(samples)}

    def image_features(images: ImageSet, wanted: Any, settings: TrainSettings) -> Features:
        return features.rows([by_path[sample.path] for sample in wanted])

    monkeypatch.setattr(label_doctor, "image_features", image_features)
    return scan(root)


def test_findings_are_written_as_lists_that_corrections_take(drawn_set: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "found"
    found = diagnose(LabelDoctorSettings(folder=drawn_set.root, out=out))
    wrong = {sample.path for sample in drawn_set.samples if "bad-" in sample.path}
    assert {suspect.path for suspect in found.suspects[:6]} == wrong
    assert found.images == 89
    assert found.unreadable == (("plum/good-89.png", "It is damaged."),)
    with (out / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert [row["flagged"] == "yes" for row in rows] == [suspect.flagged for suspect in found.suspects]
    assert all((out / row["path"]).is_file() for row in rows)
    flagged = {suspect.path for suspect in found.flagged}
    assert flagged >= wrong
    assert set(from_files(out / "suspects.csv", None)(drawn_set).excluded) == flagged
    assert {path for path, _, _ in from_files(None, out / "relabel.csv")(drawn_set).relabelled} <= wrong
    written = json.loads((out / "findings.json").read_text())
    assert written["suspects"][0].keys() >= {"path", "label", "suggested", "score"}
    assert diagnose(LabelDoctorSettings(folder=drawn_set.root, out=out)).suspects == found.suspects


def test_the_summary_names_new_pictures_and_raises_nothing(drawn_set: ImageSet) -> None:
    wrong = [sample.path for sample in drawn_set.samples if "bad-" in sample.path]
    right = [sample.path for sample in drawn_set.samples if "good-" in sample.path]
    settings = TrainSettings(data=drawn_set.root)
    found = summarize(drawn_set, settings, [wrong[0], right[0]])
    assert {each.path for each in found.suspects[:6]} == set(wrong)
    assert [each.path for each in found.new_suspects] == wrong[:1]
    assert (found.new_quality, found.new_outliers) == ((), ())
    assert found.images == 89
    assert any(wrong[0] in line for line in found.lines)
    assert not any(wrong[1] in line for line in found.lines)
    few = replace(drawn_set, samples=tuple(sample for sample in drawn_set.samples if sample.label == 0))
    assert "There is one." in summarize(few, settings).lines[0]


def test_the_page_asks_for_nothing_and_escapes_names(drawn_set: ImageSet, tmp_path: Path) -> None:
    found = replace(
        label_doctor.examine(drawn_set, TrainSettings(data=drawn_set.root)), folder=drawn_set.root, out=tmp_path
    )
    page = render(found)
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert page.count('src="data:image/jpeg') >= len(found.suspects)


@pytest.mark.browser
def test_the_page_is_readable_with_long_names_on_a_phone_too(drawn_set: ImageSet, tmp_path: Path, browser: Any) -> None:
    found = label_doctor.examine(drawn_set, TrainSettings(data=drawn_set.root))
    long = "a name of sixty characters_which-no-blank-parts-anywhere-at-all"
    pair = findings.ConfusablePair((long, long[::-1]), 20, 0.2, 3)
    assert found.curve is not None
    needs = tuple(replace(need, label=long) for need in found.curve.needs)
    for name, each in (
        ("full", replace(found, confusable=(pair,), curve=replace(found.curve, needs=needs))),
        ("empty", replace(found, suspects=(), confusable=(), outliers=(), quality=(), curve=None)),
    ):
        page = tmp_path / f"{name}.html"
        page.write_text(render(replace(each, folder=drawn_set.root, out=Path("doctor/fruit & more"))))
        browser.get(page.as_uri())
        try:
            for width, theme in ((1280, "light"), (360, "dark")):
                size = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                scheme = [{"name": "prefers-color-scheme", "value": theme}]
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
                assert browser.execute_script("return document.documentElement.scrollWidth") <= width
                require_readable(browser)
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        assert ("--exclude &#39;doctor/fruit &amp; more/suspects.csv&#39;" in page.read_text()) == (name == "full")


def test_all_files_are_written_or_none_and_edited_lists_are_not_replaced(drawn_set: ImageSet, tmp_path: Path) -> None:
    settings = LabelDoctorSettings(folder=drawn_set.root, out=tmp_path / "found")
    found = diagnose(settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # the page does not fit, as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            doctor_files.write_files(replace(found, out=tmp_path / "half"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "half").iterdir())
    edited = tmp_path / "found/suspects.csv"
    edited.write_text(edited.read_text().replace("kiwi", "Kiwi"))
    with pytest.raises(OutputError, match=r"suspects.csv was edited"):
        diagnose(settings)
    assert diagnose(settings.model_copy(update={"overwrite": True})).out == tmp_path / "found"


def test_folders_that_hold_something_else_are_refused(drawn_set: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    for out in (tmp_path / "full", drawn_set.root / "doctor", tmp_path / "page.html"):
        with pytest.raises(OutputError):
            doctor_files.prepare_folder(LabelDoctorSettings(folder=drawn_set.root, out=out))
    assert (tmp_path / "full/thesis.txt").read_text() == "mine"


def test_a_set_too_small_to_be_evaluated_is_an_error(drawn_set: ImageSet) -> None:
    few = replace(drawn_set, samples=tuple(sample for sample in drawn_set.samples if sample.label == 0))
    with pytest.raises(DataError, match="two classes"):
        label_doctor.examine(few, TrainSettings(data=drawn_set.root))


@pytest.mark.slow
def test_the_command_finds_pictures_in_the_wrong_folder_with_the_installed_weights(
    many_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    shutil.copytree(many_colours, tmp_path / "photos")
    for name in ("003.jpg", "010.png"):
        shutil.move(tmp_path / "photos/red" / name, tmp_path / "photos/blue" / f"moved-{name}")
    (tmp_path / "photos/green/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(SystemExit) as ended:
        main(["data", "doctor", "photos", "--image-size", "64", "--json"])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert [suspect["path"] for suspect in found["suspects"][:2]] == ["blue/moved-003.jpg", "blue/moved-010.png"]
    assert {suspect["suggested"] for suspect in found["suspects"][:2]} == {"red"}
    flagged = [suspect["path"] for suspect in found["suspects"] if suspect["flagged"]]
    assert len(flagged) <= 4
    assert found["unreadable"][0][0] == "green/broken.jpg"
    assert (tmp_path / "doctor/photos/report.html").is_file()
    with pytest.raises(SystemExit):
        main(["data", "split", "photos", "--exclude", "doctor/photos/suspects.csv", "--out", "m.csv", "--json"])
    assert len(json.loads(capsys.readouterr().out)["excluded"]) == len(flagged)
