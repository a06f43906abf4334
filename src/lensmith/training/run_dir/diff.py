"""Differences since a run's start, in settings and images, and between the parts of a teacher and its student."""

from collections.abc import Mapping
from filecmp import cmp
from pathlib import Path
from typing import Any

from lensmith.config import TrainSettings
from lensmith.config.training import MAY_CHANGE
from lensmith.core.text import listed
from lensmith.data.corrections import apply
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.split import prepare
from lensmith.errors import DataError, RunError
from lensmith.imaging.crops import picture_of
from lensmith.training.run_dir.run import Run

FOR_A_BUDGET = frozenset(
    {
        "image_size", "trainable_stages", "epochs", "head_epochs", "views", "unfreeze_every", "mixup", "cutmix",
        "augment", "first_lr_ratio", "backbone_lr_ratio", "feature_weight",
    }
)  # fmt: skip
"""Settings that a run with a time budget chose for itself."""


def of_settings(settings: TrainSettings, given: Mapping[str, Any]) -> list[str]:
    """Settings that are given differently and may not change, as `lr: 0.001 in the run, 0.01 now`.

    Args:
        settings: the run's settings.
        given: validated values by name; settings that are not named are not compared.
    """
    found = []
    ignored = MAY_CHANGE | (FOR_A_BUDGET if settings.time_budget is not None else frozenset())
    for name, now in given.items():
        before = getattr(settings, name)
        if name not in ignored and _comparable(before) != _comparable(now):
            found.append(f"{name}: {_shown(before)} in the run, {_shown(now)} now")
    return found


def with_changes(run: Run, given: Mapping[str, Any]) -> Run:
    """Take the settings that may change over into the run and its run.json.

    Args:
        run: the run as it was written.
        given: validated settings by name; settings that are not named are not compared.

    Raises:
        RunError: a setting that may not change is different, or the classes or images are.
    """
    different = of_settings(run.settings, given)
    out = given.get("out") or run.path
    if out.resolve() != run.path.resolve():
        different.append(f"out: {run.path} in the run, {out} now")
    if different:
        raise RunError(
            f"The settings that the run {run.path} was started with were expected.",
            f"These differ: {'; '.join(different)}.",
            "Leave them out, or train anew into another folder with --out.",
        )
    source = given["data"].resolve() if "data" in given else run.source
    remedy = f"Put them back, name where they lie now (lensmith train DIR --resume {run.path}), or train anew."
    expected = f"The images that the run {run.path} was started with were expected in {source}."

    def correct(images: ImageSet) -> ImageSet:
        """The images with the run's corrections as they were at its start, whatever became of the lists."""
        return apply(images, run.images.excluded, {path: after for path, _, after in run.images.relabelled})

    try:
        settings, layout = run.settings, given.get("layout", run.settings.layout)
        images = prepare(source, settings.split, settings.seed, layout, correct, settings.group, settings.cv)
    except DataError as error:
        raise RunError(expected, error.arrived, remedy) from error
    if different := of_data(run, images):
        raise RunError(expected, f"They have changed: {'; '.join(different)}.", remedy)
    changes = {name: value for name, value in given.items() if name in MAY_CHANGE}
    return run.with_settings(run.settings.model_copy(update=changes), source, images.root.resolve())


def of_data(run: Run, images: ImageSet) -> list[str]:
    """Differences in classes, then in files: how many were removed, added, or have another size, class or part."""
    before = {sample.path: (run.images.labels[sample.label], sample.part) for sample in run.images.samples}
    now = {sample.path: (images.labels[sample.label], sample.part) for sample in images.samples}
    sizes = {sample.path: size for sample, size in zip(images.samples, images.sizes, strict=True)}
    both = [path for path in before if path in now]
    files = {
        "removed": [path for path in before if path not in now],
        "added": [path for path in now if path not in before],
        "of another size": [path for path in both if run.sizes[path] != sizes[path]],
        "of another class": [path for path in both if before[path][0] != now[path][0]],
    }
    if not files["removed"] and not files["added"]:  # which may put others into other parts
        files["in another part"] = [path for path in both if before[path][1] != now[path][1]]
        fold_of = {sample.path: sample.fold for sample in run.images.samples}
        files["in another fold"] = [each.path for each in images.samples if fold_of.get(each.path) != each.fold]
    classes = {
        "removed": [label for label in run.images.labels if label not in images.labels],
        "added": [label for label in images.labels if label not in run.images.labels],
    }
    return [f"classes {what}: {listed(labels, 10)}" for what, labels in classes.items() if labels] + [
        f"{len(paths):,} image{'s' * (len(paths) > 1)} {what} ({listed(paths, 10)})"
        for what, paths in files.items()
        if paths
    ]


def crossed(run: Run, images: ImageSet) -> list[str]:
    """Data leakage between two runs: paths of images that train in one and validate or test in the other.

    Args:
        run: the one run, whose folder names each image's part.
        images: the other run's images, in parts. In another folder an image is the same if its path and bytes are,
            as far as the first run's file is still there to be compared.
    """
    trains = {sample.path: sample.part == "train" for sample in run.images.samples}
    elsewhere = images.root.resolve() != run.images.root.resolve()

    def same(sample: Sample, size: int) -> bool:
        theirs = run.images.root / sample.path
        return size == run.sizes[sample.path] and (
            not picture_of(theirs).exists() or cmp(picture_of(theirs), picture_of(images.file(sample)), shallow=False)
        )

    return [
        sample.path
        for sample, size in zip(images.samples, images.sizes, strict=True)
        if trains.get(sample.path, sample.part == "train") is not (sample.part == "train")
        and (not elsewhere or same(sample, size))
    ]


def _comparable(value: Any) -> Any:
    """Paths in full, since the same file may be named from another folder."""
    return value.resolve() if isinstance(value, Path) else value


def _shown(value: Any) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
