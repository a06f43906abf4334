"""Training: backbones, recipes, fine-tuning, distillation, and the cache that runs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given
from lensmith.core.machine import share_cores

if TYPE_CHECKING:
    from lensmith.core.cache import CacheClearResult, CacheContents
    from lensmith.training.models.zoo import Backbone
    from lensmith.training.recipe_file import ValidatedRecipe
    from lensmith.workflows.distill import Distilled
    from lensmith.workflows.train_and_export import Trained


def models(
    pattern: str = "*", max_params: float | None = None, suited: Literal["cpu", "gpu", "edge"] | None = None
) -> list[Backbone]:
    """List the backbones that `model` can name.

    Args:
        pattern: Part of a name, or a glob such as `*lite*`.
        max_params: Largest number of parameters, in millions.
        suited: Selects a few that suit this kind of machine, the best first.
    """
    from lensmith.training.models.zoo import find

    return find(pattern, max_params=max_params, suited=suited)


def recipe(which: StrPath = "balanced") -> config.TrainSettings:
    """All settings of a preset or of a recipe file, as `train` would resolve them; `data` is a placeholder."""
    from lensmith.training.schedule import named

    return named(which)


def validate(recipe: StrPath) -> ValidatedRecipe:
    """Check a recipe file before a training; the error that is raised lists every mistake."""
    share_cores()
    from lensmith.training.recipe_file import validate as run

    return run(Path(recipe))


@documented(config.TrainSettings)
def train(
    data: StrPath | None = None, *, recipe: StrPath | None = None, resume: StrPath | None = None,
    model: str = default("tf_efficientnet_lite0"), pretrained: bool = default(True), weights: StrPath | None = None,
    preset: Literal["fast", "balanced", "best", "finetune-head", "layerwise", "high-resolution"] = default("balanced"),
    image_size: int | None = None, sizes: str | int | Sequence[int] | None = None,
    resize: Literal["crop", "letterbox", "squash"] = default("crop"), split: str | Sequence[float] = default((5, 3, 2)),
    cv: int | None = None, layout: Literal["auto", "parts", "classes"] = default("auto"), group: str = default("none"),
    exclude: StrPath | None = None, relabel: StrPath | None = None, epochs: int = default(20),
    head_epochs: int = default(2), trainable_stages: int | None = None, unfreeze_every: int | None = None,
    head_solver: Literal["auto", "lbfgs", "ncm", "minibatch"] = default("auto"), views: int | None = None,
    feature_cache: Literal["auto", "never"] = default("auto"), cache_gb: float | None = None,
    unlabelled: StrPath | None = None, time_budget: float | str | None = None, max_steps: int | None = None,
    batch_size: int = default(32), accumulate: int = default(1),
    optimizer: Literal["sgd", "adam", "adamw"] = default("adamw"), lr: float = default(0.001),
    backbone_lr_ratio: float = default(0.1), first_lr_ratio: float | None = None, momentum: float = default(0.9),
    weight_decay: float = default(0.01), schedule: Literal["cosine", "plateau", "constant"] = default("cosine"),
    plateau_factor: float = default(0.1), plateau_patience: int = default(2), warmup: float = default(0.05),
    clip_norm: float | None = None, batch_norm: Literal["frozen", "train"] = default("frozen"),
    batch_norm_tile: int = default(32), sync_batch_norm: bool = default(False), label_smoothing: float = default(0.1),
    class_weights: Literal["none", "balanced"] = default("none"),
    sampling: Literal["shuffle", "balanced"] = default("shuffle"), dropout: float = default(0.0),
    augment: Literal["none", "flip", "light", "standard", "trivial"] = default("standard"),
    transforms: StrPath | None = None, albumentations: StrPath | None = None, mixup: float = default(0.0),
    cutmix: float = default(0.0), ema: float | None = None, teacher: StrPath | None = None,
    teacher_weight: float = default(0.5), teacher_temperature: float = default(2.0),
    feature_weight: float = default(0.0), precision: Literal["auto", "fp32", "bf16", "fp16"] = default("auto"),
    patience: int = default(5), monitor: Literal["loss", "accuracy", "balanced_accuracy", "f1"] = default("loss"),
    on_nan: Literal["stop", "skip"] = default("stop"), save_minutes: float = default(10.0),
    memory_fraction: float | None = None, min_chunk: int = default(1),
    checkpointing: Literal["auto", "always", "never"] = default("auto"), processes: int = default(1),
    loader_workers: int | None = None, device: str = default("auto"), seed: int = default(0),
    out: StrPath | None = None, tracking: str = default("auto"),
) -> Trained:  # fmt: skip
    """Fine-tune a backbone, and export the best epoch as a bundle.

    Args:
        recipe: YAML file of settings, below the keywords and above lensmith.yaml.
        resume: Run folder to resume with its own settings. "auto" resumes the run that these settings started, in
            `out` or else under runs/, or starts it.
    """
    settings = given(locals(), "recipe", "resume")
    share_cores()
    from lensmith.workflows.train_and_export import train as run

    return run(settings, recipe, resume)


@documented(config.TrainSettings)
def distill(
    teacher: StrPath | None = None, student: str | None = None, *, recipe: StrPath | None = None,
    resume: StrPath | None = None,
    data: StrPath | None = None, pretrained: bool = default(True), weights: StrPath | None = None,
    preset: Literal["fast", "balanced", "best", "finetune-head", "layerwise", "high-resolution"] = default("balanced"),
    image_size: int | None = None, sizes: str | int | Sequence[int] | None = None,
    resize: Literal["crop", "letterbox", "squash"] = default("crop"), split: str | Sequence[float] = default((5, 3, 2)),
    cv: int | None = None, layout: Literal["auto", "parts", "classes"] = default("auto"), group: str = default("none"),
    exclude: StrPath | None = None, relabel: StrPath | None = None, epochs: int = default(20),
    head_epochs: int = default(2), trainable_stages: int | None = None, unfreeze_every: int | None = None,
    head_solver: Literal["auto", "lbfgs", "ncm", "minibatch"] = default("auto"), views: int | None = None,
    feature_cache: Literal["auto", "never"] = default("auto"), cache_gb: float | None = None,
    unlabelled: StrPath | None = None, time_budget: float | str | None = None, max_steps: int | None = None,
    batch_size: int = default(32), accumulate: int = default(1),
    optimizer: Literal["sgd", "adam", "adamw"] = default("adamw"), lr: float = default(0.001),
    backbone_lr_ratio: float = default(0.1), first_lr_ratio: float | None = None, momentum: float = default(0.9),
    weight_decay: float = default(0.01), schedule: Literal["cosine", "plateau", "constant"] = default("cosine"),
    plateau_factor: float = default(0.1), plateau_patience: int = default(2), warmup: float = default(0.05),
    clip_norm: float | None = None, batch_norm: Literal["frozen", "train"] = default("frozen"),
    batch_norm_tile: int = default(32), sync_batch_norm: bool = default(False), label_smoothing: float = default(0.1),
    class_weights: Literal["none", "balanced"] = default("none"),
    sampling: Literal["shuffle", "balanced"] = default("shuffle"), dropout: float = default(0.0),
    augment: Literal["none", "flip", "light", "standard", "trivial"] = default("standard"),
    transforms: StrPath | None = None, albumentations: StrPath | None = None, mixup: float = default(0.0),
    cutmix: float = default(0.0), ema: float | None = None, teacher_weight: float = default(0.5),
    teacher_temperature: float = default(2.0), feature_weight: float = default(0.0),
    precision: Literal["auto", "fp32", "bf16", "fp16"] = default("auto"), patience: int = default(5),
    monitor: Literal["loss", "accuracy", "balanced_accuracy", "f1"] = default("loss"),
    on_nan: Literal["stop", "skip"] = default("stop"), save_minutes: float = default(10.0),
    memory_fraction: float | None = None, min_chunk: int = default(1),
    checkpointing: Literal["auto", "always", "never"] = default("auto"), processes: int = default(1),
    loader_workers: int | None = None, device: str = default("auto"), seed: int = default(0),
    out: StrPath | None = None, tracking: str = default("auto"),
) -> Distilled:  # fmt: skip
    """Train a small network on the answers of a trained one (knowledge distillation), and export it.

    Args:
        teacher: Run folder; images, parts, seed and resize mode are those of this run unless they are given.
        student: Backbone to train, the setting `model`.
        recipe: YAML file of settings, as for `train`.
        resume: Run folder or "auto", as for `train`.
    """
    settings = {**given(locals(), "student", "recipe", "resume"), "model": student}
    share_cores()
    from lensmith.workflows.distill import distill as run

    return run(settings, recipe, resume)


def list_cache() -> CacheContents:
    """List what runs have cached for later runs: features of frozen layers, decoded pixels, answers of bundles."""
    from lensmith.core.cache import list_cache as run

    return run()


def clear_cache(kind: Literal["features", "pixels", "answers", "measured"] | None = None) -> CacheClearResult:
    """Clear the cache: one kind of entry, or all of them; downloads stay."""
    from lensmith.core.cache import clear_cache as run

    return run(kind)
