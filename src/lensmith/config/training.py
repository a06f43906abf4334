"""Settings of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_serializer

from lensmith.config.base import Settings
from lensmith.config.values import Ratio, Seconds, Side, Sizes, without_password
from lensmith.imaging.preprocessing import ResizeMode

MAY_CHANGE = frozenset(
    {
        "data", "out", "workers", "device", "processes", "memory_fraction", "min_chunk", "checkpointing",
        "save_minutes", "on_nan", "tracking",
    }
)  # fmt: skip
"""Settings that decide where and how fast a training runs, but not its result (images are compared by content)."""


class TrainSettings(Settings):
    """`lensmith train`."""

    verb = "train"
    positional = ("data",)

    data: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    model: str = Field("tf_efficientnet_lite0", description="Backbone; `lensmith models` lists them.")
    pretrained: bool = Field(True, description="Start from pretrained weights.")
    weights: Path | None = Field(None, description="Start from these instead: a file, a folder, or hf:OWNER/NAME.")
    preset: Literal["fast", "balanced", "best", "finetune-head", "layerwise", "high-resolution"] = Field(
        "balanced", description="Settings to begin with; `lensmith recipe show PRESET` prints them."
    )
    image_size: Side | None = Field(None, description="Pixels a side; the backbone's own by default.")
    sizes: Sizes = Field(
        None, description="Pixels a side to train at, in turn for equal shares of the epochs; the last is the model's."
    )
    resize: ResizeMode = Field("crop", description="How a picture becomes a square.")
    split: Ratio = Field((5, 3, 2), description="train:val:test for folders that bring no parts of their own.")
    epochs: int = Field(20, ge=1, description="Epochs at most, all phases together.")
    head_epochs: int = Field(2, ge=0, description="Epochs of them with the backbone frozen, first.")
    trainable_stages: int | None = Field(
        None, ge=0, description="Stages of the backbone that ever learn, counted from the head; all by default."
    )
    unfreeze_every: int | None = Field(
        None, ge=1, description="Gradual unfreezing: one more stage every so many epochs after the head's."
    )
    head_solver: Literal["auto", "lbfgs", "ncm", "minibatch"] = Field(
        "auto",
        description="The head of a frozen backbone: auto takes the better of L-BFGS and, for small classes, nearest "
        "class means (ncm); minibatch takes steps with the optimizer.",
    )
    views: int | None = Field(
        None,
        ge=1,
        description="Ways to see each image while layers are frozen: as it is, then augmented; by default 1 "
        "for the head alone, else 4.",
    )
    feature_cache: Literal["auto", "never"] = Field(
        "auto", description="Keep what frozen layers make of each view, or run them again in every epoch."
    )
    cache_gb: float | None = Field(
        None, ge=0, description="Disk for what is kept from run to run; by default 20, or a fifth of what is free."
    )
    time_budget: Seconds | None = Field(
        None, description="End within this time, as 90s, 5m or 1h30m: chooses image size, stages and epochs."
    )
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps, whatever the epoch.")
    batch_size: int = Field(32, ge=1, description="Images in a batch.")
    accumulate: int = Field(1, ge=1, description="Batches that make one optimizer step.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="Optimizer.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of the head.")
    backbone_lr_ratio: float = Field(0.1, gt=0, description="The last stage's rate as a share of the head's.")
    first_lr_ratio: float | None = Field(
        None, gt=0, description="The first stage's, those between spaced geometrically; all like the last by default."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay; none on biases and normalisation.")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine", description="How the rate falls; plateau: when an epoch is the best no more."
    )
    plateau_factor: float = Field(0.1, gt=0, lt=1, description="What the rate is multiplied with on a plateau.")
    plateau_patience: int = Field(2, ge=1, description="Epochs without a better one that make a plateau.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps that warm up first.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of all gradients together.")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen", description="While fine-tuning: keep BatchNorm's statistics, or learn them from the batches."
    )
    batch_norm_tile: int = Field(
        32, ge=2, description="Images that BatchNorm normalises together where it learns, whatever the chunk."
    )
    sync_batch_norm: bool = Field(
        False, description="With several processes: one set of BatchNorm statistics over all of them."
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a rare class's images weigh more in the loss."
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="shuffle: each image once an epoch; balanced: each class equally often."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the head.")
    augment: Literal["none", "flip", "light", "standard", "trivial"] = Field(
        "standard",
        description="light: crop, flip; standard: stronger crop, flip, colour; trivial: TrivialAugment for colour.",
    )
    albumentations: Path | None = Field(
        None, description="Pipeline that albumentations.save wrote (.json, .yaml), after the crop, for flip and colour."
    )
    mixup: float = Field(0.0, ge=0, description="MixUp's alpha: batches of blended pairs; 0 is off.")
    cutmix: float = Field(0.0, ge=0, description="CutMix's alpha: batches of pairs patched together; 0 is off.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is what is validated and kept."
    )
    teacher: Path | None = Field(None, description="Run folder of a network to distil from.")
    teacher_weight: float = Field(0.5, ge=0, le=1, description="The teacher's share of the loss.")
    teacher_temperature: float = Field(2.0, gt=0, description="Softens the teacher's answers.")
    feature_weight: float = Field(
        0.0, ge=0, lt=1, description="Share of matching the teacher's features before its head; labels have the rest."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto measures which is fastest here."
    )
    patience: int = Field(5, ge=1, description="Stop after so many epochs without a better one.")
    monitor: Literal["loss", "accuracy", "balanced_accuracy", "f1"] = Field(
        "loss", description="What makes an epoch the best, on the validation part; f1 is the mean over classes."
    )
    on_nan: Literal["stop", "skip"] = Field("stop", description="What to do at a loss that is not a number.")
    save_minutes: float = Field(10.0, gt=0, description="Minutes between checkpoints within an epoch.")
    memory_fraction: float | None = Field(
        None, gt=0, le=1, description="Memory to take; by default 0.95 of a GPU, 0.8 if shared, 0.9 of a CPU's free."
    )
    min_chunk: int = Field(1, ge=1, description="Fewest images to go through the network at once.")
    checkpointing: Literal["auto", "always", "never"] = Field(
        "auto", description="Activation checkpointing: when memory is short, or always."
    )
    processes: int = Field(1, ge=1, description="Processes on this machine, one a GPU, that train together.")
    workers: int | None = Field(None, ge=0, description="Data processes; from the cores allowed by default.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random.")
    out: Path | None = Field(None, description="Run folder; runs/DATA-MODEL-TIME by default.")
    tracking: str = Field(
        "auto", description="MLflow's tracking URI, or none; auto: where `tracking` says, if MLflow is installed."
    )

    @field_serializer("tracking")
    def _tracking_without_password(self, uri: str) -> str:
        return without_password(uri)

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "time_budget chooses the sizes, and needs processes = 1": lambda time_budget, sizes, processes: (
            time_budget is not None and (bool(sizes) or processes > 1)
        ),
        "image_size must be the last of sizes": lambda image_size, sizes: sizes and image_size not in (None, sizes[-1]),
        "sizes are more than epochs": lambda sizes, epochs: sizes and len(sizes) > epochs,
        "unfreeze_every with trainable_stages = 0 has nothing to unfreeze": lambda unfreeze_every, trainable_stages: (
            unfreeze_every is not None and trainable_stages == 0
        ),
        "plateau_factor and plateau_patience need schedule = plateau": (
            lambda schedule, plateau_factor, plateau_patience: (
                schedule != "plateau" and (plateau_factor, plateau_patience) != (0.1, 2)
            )
        ),
        "sync_batch_norm needs batch_norm = train": lambda sync_batch_norm, batch_norm: (
            sync_batch_norm and batch_norm == "frozen"
        ),
        "class_weights and sampling would both balance the classes, so one of them must do": (
            lambda class_weights, sampling: class_weights == sampling == "balanced"
        ),
        "albumentations needs augment = flip, light or standard, whose flip and colour it stands in for": (
            lambda albumentations, augment: albumentations is not None and augment in ("none", "trivial")
        ),
        "teacher_weight and teacher_temperature need a teacher": lambda teacher, teacher_weight, teacher_temperature: (
            teacher is None and (teacher_weight, teacher_temperature) != (0.5, 2.0)
        ),
        "feature_weight needs a teacher": lambda teacher, feature_weight: teacher is None and feature_weight > 0,
        "teacher_weight + feature_weight are more than 1": lambda teacher_weight, feature_weight: (
            feature_weight > 0 and teacher_weight + feature_weight > 1 + 1e-9
        ),
        "feature_weight needs stages that learn, and trainable_stages = 0": lambda feature_weight, trainable_stages: (
            feature_weight > 0 and trainable_stages == 0
        ),
        "min_chunk is more than batch_size × accumulate": lambda min_chunk, batch_size, accumulate: (
            min_chunk > batch_size * accumulate
        ),
    }

    @property
    def step_images(self) -> int:
        """Images in an optimizer step."""
        return self.batch_size * self.accumulate

    @property
    def model_size(self) -> int | None:
        """Pixels a side of the trained model; None: the backbone's own."""
        return self.sizes[-1] if self.sizes else self.image_size
