"""Settings of `lensmith train`: data, model, recipe, regularization, memory, tracking."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_serializer

from lensmith.config.base import Settings
from lensmith.config.values import (
    EXCLUDE,
    GROUP,
    LAYOUT,
    RELABEL,
    Group,
    Layout,
    Ratio,
    Seconds,
    Side,
    Sizes,
    without_password,
)
from lensmith.imaging.preprocessing import ResizeMode

MAY_CHANGE = frozenset(
    {
        "data", "layout", "out", "loader_workers", "device", "processes", "memory_fraction", "min_chunk",
        "checkpointing", "save_minutes", "on_nan", "tracking",
    }
)  # fmt: skip
"""Settings that decide where and how fast a training runs, but not its result (images are compared by content)."""


class TrainSettings(Settings):
    """`lensmith train`."""

    verb = "train"
    positional = ("data",)
    renamed: ClassVar[Mapping[str, str]] = {"workers": "loader_workers"}
    panels: ClassVar[Mapping[str, str]] = {
        "Data": "split cv layout group exclude relabel unlabelled resize sizes views augment transforms albumentations "
        "sampling class_weights loader_workers",
        "Model": "weights pretrained head_solver trainable_stages unfreeze_every batch_norm sync_batch_norm",
        "Recipe": "head_epochs max_steps accumulate optimizer backbone_lr_ratio first_lr_ratio momentum weight_decay "
        "schedule plateau_factor plateau_patience warmup clip_norm patience monitor on_nan",
        "Regularization": "label_smoothing dropout mixup cutmix ema",
        "Distillation": "teacher teacher_weight teacher_temperature feature_weight",
        "Memory and speed": "precision memory_fraction min_chunk checkpointing batch_norm_tile feature_cache cache_gb "
        "processes",
        "Tracking": "tracking save_minutes",
    }

    data: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    model: str = Field("tf_efficientnet_lite0", description="Backbone; `lensmith models` lists them.")
    pretrained: bool = Field(True, description="Start from pretrained weights.")
    weights: Path | None = Field(None, description="Start from other weights: a file, a folder, or hf:OWNER/NAME.")
    preset: Literal["fast", "balanced", "best", "finetune-head", "layerwise", "high-resolution"] = Field(
        "balanced", description="Set of defaults; `lensmith recipe show PRESET` prints it."
    )
    image_size: Side | None = Field(None, description="Image side in pixels; the backbone's own by default.")
    sizes: Sizes = Field(
        None,
        description="Progressive resizing: image sides in pixels for equal shares of the epochs, the model's last.",
    )
    resize: ResizeMode = Field("crop", description="How an image is made square.")
    split: Ratio = Field((5, 3, 2), description="train:val:test for data sets that bring no split of their own.")
    cv: int | None = Field(
        None,
        ge=2,
        description="Cross-validation: number of folds, each validated by a model that learnt from the others; the "
        "bundle's model learns from all.",
    )
    layout: Layout = Field("auto", description=LAYOUT)
    group: Group = Field("none", description=GROUP)
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    epochs: int = Field(20, ge=1, description="Largest number of epochs, all phases together.")
    head_epochs: int = Field(
        2, ge=0, description="Epochs, of these, that train the head alone, with a frozen backbone."
    )
    trainable_stages: int | None = Field(
        None, ge=0, description="Number of backbone stages to fine-tune, counted from the head; all by default."
    )
    unfreeze_every: int | None = Field(
        None, ge=1, description="Gradual unfreezing: one more stage every N epochs, after the epochs of the head."
    )
    head_solver: Literal["auto", "lbfgs", "ncm", "minibatch"] = Field(
        "auto",
        description="How the head of a frozen backbone is trained: auto takes the better of L-BFGS and, for small "
        "classes, nearest class means (ncm); minibatch uses the optimizer.",
    )
    views: int | None = Field(
        None,
        ge=1,
        description="Augmented views of each image while layers are frozen, the first without augmentation; by "
        "default 1 for the head alone, else 4.",
    )
    feature_cache: Literal["auto", "never"] = Field(
        "auto", description="auto: cache the features of frozen layers; never: compute them again in every epoch."
    )
    cache_gb: float | None = Field(
        None,
        ge=0,
        description="Disk space in GB for caches that later runs reuse; 20, or a fifth of the free space, by default.",
    )
    unlabelled: Path | None = Field(
        None,
        description="Self-training: folder of unlabelled pictures, from which the head of a frozen backbone learns "
        "where validation shows that it helps.",
    )
    time_budget: Seconds | None = Field(
        None, description="Time limit, as 90s, 5m or 1h30m: image size, stages and epochs are chosen to fit."
    )
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps, whatever the epoch.")
    batch_size: int = Field(32, ge=1, description="Number of images in a batch.")
    accumulate: int = Field(1, ge=1, description="Gradient accumulation: number of batches for one optimizer step.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="Optimizer.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of the head.")
    backbone_lr_ratio: float = Field(0.1, gt=0, description="Learning rate of the last stage over the head's.")
    first_lr_ratio: float | None = Field(
        None,
        gt=0,
        description="Layer-wise learning rates: the first stage's over the head's; by default the last stage's.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay; none on biases and normalisation.")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine", description="Learning-rate schedule; plateau lowers the rate when validation stops improving."
    )
    plateau_factor: float = Field(0.1, gt=0, lt=1, description="Factor on the learning rate at a plateau.")
    plateau_patience: int = Field(2, ge=1, description="Number of epochs without improvement that make a plateau.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the optimizer steps for the learning-rate warm-up.")
    clip_norm: float | None = Field(None, gt=0, description="Gradient clipping: largest norm of all gradients.")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen",
        description="BatchNorm while fine-tuning: keep the pretrained statistics, or update them from the batches.",
    )
    batch_norm_tile: int = Field(
        32, ge=2, description="With batch_norm train: number of images normalised together, whatever the chunk size."
    )
    sync_batch_norm: bool = Field(
        False, description="With several processes: BatchNorm statistics over the images of all processes."
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing: probability shared by all classes.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: images of rare classes have larger weights in the loss."
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="shuffle: each image once per epoch; balanced: each class equally often."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate before the head.")
    augment: Literal["none", "flip", "light", "standard", "trivial"] = Field(
        "standard",
        description="light: crop, flip; standard: stronger crop, flip, colour; trivial: TrivialAugment for colour.",
    )
    transforms: Path | None = Field(
        None,
        description="YAML or JSON list of torchvision's transforms (v2) that replaces flip and colour, after the crop.",
    )
    albumentations: Path | None = Field(
        None, description="File of albumentations.save, with the same effect; that library is no longer maintained."
    )
    mixup: float = Field(0.0, ge=0, description="Alpha of MixUp, which blends pairs of images; 0 is off.")
    cutmix: float = Field(0.0, ge=0, description="Alpha of CutMix, which pastes parts of images into others; 0 is off.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="EMA: decay of a moving average of the weights, which is validated and saved."
    )
    teacher: Path | None = Field(None, description="Knowledge distillation: run folder of the teacher.")
    teacher_weight: float = Field(0.5, ge=0, le=1, description="Weight of the teacher's predictions in the loss, 0..1.")
    teacher_temperature: float = Field(
        2.0, gt=0, description="Distillation temperature, which softens the teacher's probabilities."
    )
    feature_weight: float = Field(
        0.0, ge=0, lt=1, description="Feature distillation: weight of matching the teacher's features in the loss."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Mixed precision; auto measures which precision is fastest on this machine."
    )
    patience: int = Field(5, ge=1, description="Early stopping: stop after this many epochs without improvement.")
    monitor: Literal["loss", "accuracy", "balanced_accuracy", "f1"] = Field(
        "loss", description="Validation metric that selects the best epoch; f1 is the mean over classes."
    )
    on_nan: Literal["stop", "skip"] = Field(
        "stop", description="At a loss that is not a number: stop, or skip the step."
    )
    save_minutes: float = Field(10.0, gt=0, description="Minutes between checkpoints within an epoch.")
    memory_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the memory to use; by default 0.95 of a GPU, 0.8 if shared, 0.9 of a CPU's free memory.",
    )
    min_chunk: int = Field(
        1, ge=1, description="Smallest chunk, in images, to which an out-of-memory retry may shrink a batch."
    )
    checkpointing: Literal["auto", "always", "never"] = Field(
        "auto", description="Activation checkpointing: time for memory; auto when memory is short."
    )
    processes: int = Field(1, ge=1, description="Data-parallel processes on this machine, one per GPU.")
    loader_workers: int | None = Field(
        None, ge=0, description="Data-loader workers; by default from the available cores."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all random numbers.")
    out: Path | None = Field(None, description="Run folder; runs/DATA-MODEL-TIME by default.")
    tracking: str = Field(
        "auto", description="MLflow tracking URI, or none; auto: as the `tracking` settings, if MLflow is installed."
    )

    @field_serializer("tracking")
    def _tracking_without_password(self, uri: str) -> str:
        return without_password(uri)

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "cv makes folds of all images but a test part, and split has no say": lambda cv, split: (
            cv is not None and split != (5, 3, 2)
        ),
        "cv trains a model for each fold and one more, and needs time_budget = none": lambda cv, time_budget: (
            None not in (cv, time_budget)
        ),
        "cv validates on every image, and a teacher must not have learnt from one that validates": lambda cv, teacher: (
            None not in (cv, teacher)
        ),
        "cv learns from all images at the end, and schedule = plateau needs some to validate on": lambda cv, schedule: (
            cv is not None and schedule == "plateau"
        ),
        "cv learns from all images at the end, and unlabelled needs some to validate on": lambda cv, unlabelled: (
            None not in (cv, unlabelled)
        ),
        "unlabelled needs a frozen backbone (trainable_stages = 0, as in the preset fast) and a head that is solved "
        "for (head_solver other than minibatch, feature_cache = auto)": (
            lambda unlabelled, trainable_stages, head_solver, feature_cache: (
                unlabelled is not None
                and (trainable_stages != 0 or head_solver == "minibatch" or feature_cache == "never")
            )
        ),
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
        "transforms needs augment = flip, light or standard, whose flip and colour it replaces": (
            lambda transforms, augment: transforms is not None and augment in ("none", "trivial")
        ),
        "albumentations needs augment = flip, light or standard, whose flip and colour it replaces": (
            lambda albumentations, augment: albumentations is not None and augment in ("none", "trivial")
        ),
        "transforms and albumentations both replace flip and colour, so one of them must do": (
            lambda transforms, albumentations: None not in (transforms, albumentations)
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
        """Number of images in an optimizer step."""
        return self.batch_size * self.accumulate

    @property
    def model_size(self) -> int | None:
        """Image side of the trained model in pixels; None for the backbone's own."""
        return self.sizes[-1] if self.sizes else self.image_size
