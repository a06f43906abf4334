"""Evaluation of a bundle on labelled images, with the engine that serves."""

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lensmith.bundle.format import Bundle
from lensmith.bundle.image_hashes import Use
from lensmith.config import EvaluateSettings
from lensmith.core.files import atomic_write
from lensmith.core.labels import distinguished, lookalike, matched_label
from lensmith.core.output_names import require_folder_name
from lensmith.core.progress import track
from lensmith.core.text import listed
from lensmith.core.version import installed_versions
from lensmith.data.corrections import from_files
from lensmith.data.groups import with_groups
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.readable import without_unreadable
from lensmith.data.scan import scan
from lensmith.data.split import assign
from lensmith.errors import DataError, OutputError
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.held_out import held_out
from lensmith.evaluation.metrics import measure
from lensmith.evaluation.near_training import near_training
from lensmith.evaluation.report import write_report
from lensmith.imaging.decoding import read
from lensmith.inference.classifier import Classifier, load

LATENCY_IMAGES = 30

_INCLUDED: dict[str, tuple[Use, ...]] = {"train": ("train", "val"), "val": ("val",)}
"""Known images that belong to a part: without them nothing of it would be left."""


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Evaluate a bundle, and write `report.html` and `evaluation.json` into `settings.out`, in place of older ones.

    Images that the model learnt from or was chosen on are left out, by their content. Only of the parts train and val,
    asked for by name, those are evaluated that were used as such, and the headline says so; likewise of val where there
    is no test part.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: no such images, classes that the bundle does not know, no image that can be read, or none held out.
        OutputError: the report's folder is no folder, or cannot be written to.
    """
    out = settings.out or Path("evaluation")
    _require_writable(out)
    classifier = load(settings.bundle, settings.engine)
    correct = from_files(settings.exclude, settings.relabel)
    images = _as_trained(correct(scan(settings.data, layout=settings.layout)), classifier.bundle)
    part, samples = _pick(images, settings.part)
    samples, counts = held_out(classifier.bundle, images, samples, _INCLUDED.get(part, ()))
    answered = evaluate_samples(classifier, images, samples, part)
    out.mkdir(parents=True, exist_ok=True)
    near = None if part == "train" else near_training(classifier.bundle, images, samples)
    evaluation = replace(
        answered,
        data=settings.data,
        report=out / "report.html",
        held_out=counts,
        near_training=near,
        notes=(*answered.notes, *counts.notes(), *([near.note] if near else [])),
    )
    write_report(evaluation, out / "report.html")
    atomic_write(out / "evaluation.json", json.dumps(evaluation.as_dict(), indent=1) + "\n")
    return evaluation


def evaluate_samples(classifier: Classifier, images: ImageSet, samples: Sequence[Sample], part: str) -> Evaluation:
    """Classify labelled samples and compute the metrics; nothing is written.

    Args:
        classifier: a bundle with its engine.
        images: the image set; its classes are matched with the bundle's by name.
        samples: samples of the set to classify.
        part: name of the samples in the result: train, val, test or all.

    Raises:
        DataError: classes that the bundle does not know, or no image that can be read.
    """
    started = time.perf_counter()
    labels = classifier.bundle.labels
    class_of = _match(images, samples, labels)
    probabilities = np.empty((len(samples), len(labels)), dtype=np.float32)
    truth = np.empty(len(samples), dtype=np.int64)
    files: list[Path] = []
    unreadable: list[tuple[str, str]] = []
    answers = classifier.stream([images.file(sample) for sample in samples], top_k=1)
    for sample, answer in zip(samples, track(answers, "Evaluating", len(samples)), strict=True):
        if answer.error is not None:
            unreadable.append((sample.path, answer.error))
            continue
        probabilities[len(files)], truth[len(files)] = answer.probabilities, class_of[sample.label]
        files.append(images.file(sample))
    streamed = time.perf_counter() - started
    count = len(files)
    if count == 0:
        raise DataError(
            f"Images that can be read were expected in {images.root}.",
            f"None of {len(samples)} can; the first, {unreadable[0][0]}: {unreadable[0][1]}",
            f"See what is wrong with each: lensmith data check {images.root}",
        )
    manifest = classifier.bundle.manifest
    return Evaluation(
        bundle=f"{manifest.name} {manifest.version}",
        engine=classifier.engine.name,
        precision=classifier.engine.precision,
        data=images.root,
        part=part,
        fingerprint=images.fingerprint,
        labels=labels,
        metrics=measure(truth[:count], probabilities[:count]),
        files=tuple(files),
        truth=truth[:count],
        probabilities=probabilities[:count],
        unreadable=tuple(unreadable),
        images_per_second=len(samples) / streamed,
        latency_ms=_latency_ms(classifier, files[:LATENCY_IMAGES]),
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).replace(microsecond=0),
        versions=installed_versions(("lensmith", classifier.engine.name, "numpy", "pillow", "scikit-learn")),
        notes=_notes(images),
        abstention=manifest.abstention,
        value_ranges=manifest.preprocessing.value_ranges,
        contested=images.contested,
    )


def _as_trained(images: ImageSet, bundle: Bundle) -> ImageSet:
    """Divide images as in the training, where the bundle was trained on them and split them on the fly."""
    recipe = bundle.manifest.recipe
    if images.parts not in ((), ("train",)) or not {"split", "seed"} <= recipe.keys():
        return images
    dataset, ratio = bundle.manifest.dataset, tuple(recipe["split"])

    def divided(found: ImageSet) -> ImageSet | None:
        try:
            as_then = assign(with_groups(found, recipe.get("group", "none")), ratio, recipe["seed"])
        except DataError:  # other images than the bundle's, which have no such groups
            return None
        return as_then if as_then.fingerprint == dataset.get("fingerprint") else None

    trained_on = divided(images)
    # Only readable images were divided; all are decoded for it where there are more now.
    if trained_on is None and len(images.samples) > sum(dataset.get("parts", {}).values()) > 0:
        trained_on = divided(without_unreadable(images))
    return trained_on or images


def _pick(images: ImageSet, wanted: str) -> tuple[str, tuple[Sample, ...]]:
    if wanted == "auto":
        wanted = next((part for part in ("test", "val") if part in images.parts), "all")
    if wanted == "all":
        return wanted, images.samples
    samples = tuple(sample for sample in images.samples if sample.part == wanted)
    if not samples:
        has = f"It has the parts {', '.join(images.parts)}." if images.parts else "It has no parts yet."
        raise DataError(
            f"A part called {wanted} was expected in {images.root}.",
            has,
            "Choose one with --part, or make parts first: lensmith data split DIR",
        )
    return wanted, samples


def _match(images: ImageSet, samples: Sequence[Sample], labels: Sequence[str]) -> dict[int, int]:
    """Class index in the set → class index in the bundle, for the classes that the samples have."""
    counts = Counter(images.labels[sample.label] for sample in samples)
    found = {label: matched_label(label, labels) for label in counts}
    unknown = sorted(label for label, known in found.items() if known is None)
    if unknown:
        named = listed(f"{label!r} ({counts[label]} images){_like(label, labels)}" for label in unknown)
        known = listed(map(repr, labels))
        raise DataError(
            f"Only classes that the bundle knows were expected in {images.root}: {known}.",
            f"It does not know {named}.",
            "Give the folders the names of the bundle's classes, or leave those folders out.",
        )
    index = {label: number for number, label in enumerate(labels)}
    known_as = {label: name for label, name in found.items() if name is not None}
    return {number: index[known_as[label]] for number, label in enumerate(images.labels) if label in known_as}


def _like(label: str, labels: Sequence[str]) -> str:
    like = lookalike(label, labels)
    return "" if like is None else f", which only looks like a class of the bundle: {distinguished((label, like))}"


def _latency_ms(classifier: Classifier, files: Sequence[Path]) -> float:
    """Median time from bytes to answer, in milliseconds, one image after the other."""
    times = []
    for file in files:
        encoded = read(file)
        started = time.perf_counter()
        classifier.classify(encoded)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def _notes(images: ImageSet) -> tuple[str, ...]:
    notes = list(images.remarks)
    if others := len({path for path, _ in images.set_aside} - {each.path for each in images.contested}):
        notes.append(f"Files that are no images: {others}; `lensmith data check` names them.")
    return tuple(notes)


def _require_writable(out: Path) -> None:
    """Refuse a folder that the report cannot be written to, or that is named like a file, before the long work."""
    require_folder_name(out, "the report and its JSON, with --out")
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OutputError(
            f"A folder that one may write into was expected for the report at {out}.",
            f"{nearest} is {'closed to writing' if nearest.is_dir() else 'no folder'}.",
            "Name another with --out.",
        )
