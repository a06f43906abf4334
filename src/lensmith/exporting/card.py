"""The model card: README.md of a bundle, for people, with front matter for hubs that list models.

The card has what was measured when the bundle was made, with confidence intervals; what nobody has stated, such as a
licence, is called not stated. The front matter is that of Hugging Face's model cards, with a model-index.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lensmith.bundle.drift import MIN_IMAGES, THRESHOLDS
from lensmith.bundle.format import Manifest
from lensmith.config import TrainSettings
from lensmith.core.stats import evenly_spaced, wilson
from lensmith.core.templates import percent, template_environment
from lensmith.core.text import listed
from lensmith.evaluation.cross_validation import OUT_OF_FOLD
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import calibrate
from lensmith.imaging.formats import format_of, open_image
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import settings_of

MAX_CLASSES = 100
"""Classes in the table; of more, those with the worst recall."""
SHOWN = 10
"""Confusions, and names in a sentence."""
FEW = 30
"""Images of a class; with fewer the interval of its recall is wider than a tenth."""
PICTURES = 500
"""Pictures whose sizes and formats are listed."""
BINS = 10
"""Bins of confidence in the table."""

MACHINE_SETTINGS = ("data", "out", "loader_workers", "device", "processes", "tracking", "cache_gb", "save_minutes")
"""Settings that do not affect the model, or are shown elsewhere."""

LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "unlicense", "wtfpl", "mpl-2.0", "ms-pl",
    "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "eupl-1.1", "epl-2.0", "ecl-2.0", "afl-3.0",
    "artistic-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-4.0", "openrail", "odbl", "pddl",
)  # fmt: skip
"""Identifiers that hubs know. Other terms are `other`, with the stated terms as their name."""


def write_card(path: Path, manifest: Manifest, evaluation: Evaluation, run: Run) -> None:
    """Write the card of a bundle.

    Args:
        path: README.md in the bundle's folder.
        manifest: the bundle's manifest; hashes of files are not needed.
        evaluation: the evaluation of the engine that serves, with the probabilities that the bundle answers.
        run: the bundle's run.
    """
    labels, metrics = evaluation.labels, evaluation.metrics
    rows = _rows(evaluation, run)
    worst_first = sorted(rows, key=lambda row: (2.0 if row["recall"] is None else row["recall"], row["label"]))
    environment = template_environment("lensmith.exporting")
    environment.filters |= {"text": text, "percent": percent, "between": _between, "named": _named}
    card = environment.get_template("card.md.j2").render(
        front=yaml.safe_dump(front_matter(manifest, evaluation), sort_keys=False, allow_unicode=True),
        b=manifest,
        cv=manifest.cross_validation,
        e=evaluation,
        parts=run.images.parts,
        rows=worst_first[:MAX_CLASSES] if len(rows) > MAX_CLASSES else rows,
        weakest=[row for row in worst_first[:5] if row["recall"] is not None and row["recall"] < 1],
        few=[row["label"] for row in rows if 0 < row["support"] < FEW],
        confusions=[
            (labels[true], labels[called], count, metrics.per_class[true].support)
            for true, called, count in metrics.confusions(SHOWN)
        ],
        bins=_bins(evaluation),
        pictures=_pictures(evaluation.files),
        left_out=len(run.left_out()),
        phases=_phases(run),
        recipe=yaml.safe_dump(recipe_of(run.settings), sort_keys=False, allow_unicode=True),
        few_images=MIN_IMAGES,
        thresholds=THRESHOLDS,
    )
    path.write_text(card, encoding="utf-8")


def front_matter(manifest: Manifest, evaluation: Evaluation) -> dict[str, Any]:
    """The front matter that hubs read: plain values for YAML, as in Hugging Face's model cards."""
    licence = manifest.licence.get("model")
    terms: dict[str, Any] = {}
    if licence is not None:
        known = licence.lower() in LICENCES
        terms = {"license": licence.lower()} if known else {"license": "other", "license_name": licence}
    hub = re.fullmatch(r"hub (\S+/[^\s,]+).*", manifest.recipe.get("initial_weights", ""))
    base = {"base_model": hub[1], "base_model_relation": "finetune"} if hub else {}
    metrics = evaluation.metrics
    measured = (("accuracy", "Accuracy", metrics.accuracy), ("f1", "Macro F1", metrics.f1_macro))
    of = ", cross-validated" if evaluation.part == OUT_OF_FOLD else ""
    result = {
        "task": {"type": "image-classification"},
        "dataset": {
            "name": manifest.dataset["root"],
            "type": "imagefolder",
            "split": {"val": "validation", OUT_OF_FOLD: "train"}.get(evaluation.part, evaluation.part),
        },
        "metrics": [{"type": kind, "name": f"{name}{of}", "value": round(value, 4)} for kind, name, value in measured],
    }
    return {
        **terms,
        "library_name": "lensmith",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "lensmith", "onnx"],
        **base,
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": manifest.name, "results": [result]}],
    }


def licences(model: str | None, data: str | None, weights: str, cfg: Mapping[str, Any]) -> dict[str, str]:
    """Terms of the model, its data and its first weights, as far as somebody has stated them.

    Args:
        model: terms of the model that the user stated.
        data: terms of the data that the user stated.
        weights: provenance of the first weights.
        cfg: timm's configuration of the backbone; its licence counts only for weights that timm publishes.
    """
    published = str(cfg.get("license") or "") if weights.startswith(("hub timm/", "url ")) else ""
    stated = {"model": model, "data": data, "first_weights": "" if published == "unknown" else published}
    return {what: terms for what, terms in stated.items() if terms}


def recipe_of(settings: TrainSettings) -> dict[str, Any]:
    """The settings in which a run differs from its preset, as a recipe file has them; with the preset and the model."""
    preset = settings_of({"data": settings.data, "preset": settings.preset}).model_dump(mode="json")
    values = {name: value for name, value in settings.model_dump(mode="json").items() if name not in MACHINE_SETTINGS}
    changed = {name: value for name, value in values.items() if value != preset.get(name)}
    return {"preset": settings.preset, "model": settings.model, **changed}


def text(value: object) -> str:
    """Escape any value as one line of Markdown, also for a table's cell."""
    # Underscores between letters are no markup, and names are full of them.
    return re.sub(r"([\\`*\[\]<>|#~&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(str(value).split()))


def _rows(evaluation: Evaluation, run: Run) -> list[dict[str, Any]]:
    """Rows of the table of classes: images in each part, and scores; recall and precision are None without images."""
    left_out = run.left_out()
    counts = Counter((sample.label, sample.part) for sample in run.images.samples if sample.path not in left_out)
    hits = evaluation.metrics.confusion.diagonal().tolist()
    return [
        {
            **vars(scores),
            "label": label,
            "counts": [counts[number, part] for part in run.images.parts],
            "interval": wilson(hits[number], scores.support) if scores.support else None,
        }
        for number, (label, scores) in enumerate(zip(evaluation.labels, evaluation.metrics.per_class, strict=True))
    ]


def _bins(evaluation: Evaluation) -> list[tuple[float, float, int, float, float]]:
    """Bins of confidence that have images: from, to, images, mean confidence, share of correct answers."""
    correct = evaluation.probabilities.argmax(axis=1) == evaluation.truth
    found = calibrate(correct, evaluation.probabilities.max(axis=1), BINS)
    bins = zip(found.counts, found.confidence, found.accuracy, strict=True)
    return [
        (number / BINS, (number + 1) / BINS, count, confidence, accuracy)
        for number, (count, confidence, accuracy) in enumerate(bins)
        if confidence is not None and accuracy is not None
    ]


def _pictures(files: Sequence[Path]) -> str:
    """Sizes and formats of some pictures, from their headers alone; empty where none can be opened."""
    sizes, formats = [], Counter[str]()
    for file in evenly_spaced(files, PICTURES):
        try:
            with open_image(file) as picture:
                sizes.append(picture.size)
            formats[format_of(file).name] += 1
        except Exception:  # Pillow warns of large ones, or the file was just removed
            continue
    if not sizes:
        return ""
    sides = np.array(sizes)
    (narrow, low), (wide, high) = sides.min(axis=0).tolist(), sides.max(axis=0).tolist()
    width, height = np.median(sides, axis=0).astype(int).tolist()
    many = (
        f"{narrow} to {wide} pixels wide (median {width}) and {low} to {high} high (median {height})"
        if (narrow, low) != (wide, high)
        else f"all {wide} × {high} pixels"
    )
    measured = f", of which {len(sizes)} were measured," if len(sizes) < len(files) else ""
    kinds = ", ".join(name for name, _ in formats.most_common())
    return f"The pictures of the evaluation{measured} are {many}, as {kinds}."


def _phases(run: Run) -> list[dict[str, Any]]:
    """Name, epochs and seconds of each phase of the training."""
    found, before = [], 0
    for name, lines in groupby(run.history(), key=lambda line: line["phase"]):
        epochs = list(lines)
        last = epochs[-1]["epoch"]
        found.append({"name": name, "epochs": last - before, "seconds": sum(line["seconds"] for line in epochs)})
        before = last
    return found


def _between(interval: Iterable[float] | None) -> str:
    if interval is None:
        return "–"
    low, high = interval
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def _named(names: Sequence[str]) -> str:
    return listed(map(text, names), SHOWN)
