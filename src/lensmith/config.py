"""The settings of each verb.

The command line is made from these classes, so a setting, its type, its default and its help stand in one place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from lensmith.image import ResizeMode
from lensmith.settings import Settings


def parse_ratio(value: Any) -> Any:
    """`5:3:2`, `0.5,0.3,0.2` or a sequence → a tuple of three numbers, yet unchecked."""
    parts = tuple(re.split(r"[:,/]", value)) if isinstance(value, str) else value
    if isinstance(parts, (tuple, list)) and len(parts) != 3:
        raise ValueError("three numbers, as in 5:3:2")
    return parts


def parse_sizes(value: Any) -> Any:
    """`256,384,512`, one number or a sequence → a tuple of numbers."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return (value,) if isinstance(value, int) else value or None


def parse_duration(value: Any) -> Any:
    """`90s`, `5m`, `1h30m`, `30d` or seconds → seconds."""
    written = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?"
    if not isinstance(value, str) or not (parts := re.fullmatch(written, value.strip())):
        return value
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return 86_400 * days + 3600 * hours + 60 * minutes + seconds


def parse_names(value: Any) -> Any:
    """`a,b` or a sequence → a tuple of names."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Share = Annotated[float, Field(ge=0)]
Ratio = Annotated[tuple[Share, Share, Share], BeforeValidator(parse_ratio)]
Side = Annotated[int, Field(ge=16, le=2048)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
SecondsOrNone = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Formats = Annotated[
    tuple[Literal["pt2", "torchscript", "safetensors", "openvino", "tensorrt", "triton", "edge"], ...],
    BeforeValidator(parse_names),
]
Sizes = Annotated[tuple[Side, ...] | None, BeforeValidator(parse_sizes)]
Scopes = Annotated[tuple[Literal["predict", "admin"], ...], BeforeValidator(parse_names)]


class FetchSettings(Settings):
    """`lensmith data fetch`."""

    verb = "fetch"
    positional = ("name", "folder")

    name: str = Field(description="fashion-mnist, cifar10, flowers102, pets or digits")
    folder: Path = Field(description="Where the image folder goes.")
    max_train: int | None = Field(
        None, ge=1, description="At most so many training images, drawn evenly from the classes."
    )
    max_test: int | None = Field(None, ge=1, description="At most so many test images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the drawing.")


class SplitSettings(Settings):
    """`lensmith data split`."""

    verb = "split"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label.")
    ratio: Ratio = Field((5, 3, 2), description="train:val:test")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")
    out: Path | None = Field(None, description="Manifest to write; FOLDER/splits.csv by default.")
    overwrite: bool = Field(False, description="Replace an older manifest.")


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


class ExportSettings(Settings):
    """`lensmith export`."""

    verb = "export"
    positional = ("run",)

    run: Path | None = Field(None, description="Run folder that `lensmith train` made.")
    retune: Path | None = Field(
        None, description="Instead: measure this bundle's engines on this machine, and choose again among them."
    )
    target: Literal["cpu", "gpu", "edge", "all"] = Field(
        "cpu", description="Where it will run: says which engines and precisions are tried."
    )
    max_accuracy_drop: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Accuracy that an engine may lose against PyTorch, in points of 100; 0.5 by default, with --retune "
        "what the bundle was exported with.",
    )
    images: int = Field(
        1000, ge=1, description="Validation images that each candidate answers, at most; the chosen one answers all."
    )
    min_precision: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of right answers wanted; those less confident than it takes are marked as abstained.",
    )
    formats: Formats = Field(
        (),
        description="Also written, beside the bundle: pt2, torchscript, safetensors, openvino, tensorrt, triton, "
        "edge; as a,b,c. Target edge adds edge, gpu adds tensorrt and triton, all adds all.",
    )
    out: Path | None = Field(
        None, description="Bundle to write; RUN/bundle by default. A name ending in .zip is packed."
    )
    name: str | None = Field(None, description="Name in the bundle; the data folder's by default.")
    overwrite: bool = Field(False, description="Replace an older bundle.")
    tolerance: float = Field(
        1e-3, gt=0, description="Largest allowed difference of a probability from PyTorch, in fp32."
    )
    min_agreement: float = Field(
        0.999, gt=0, le=1, description="Smallest allowed share of images with the same top class, in fp32."
    )

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "a RUN or --retune BUNDLE is needed, and not both": lambda run, retune: (run is None) == (retune is None),
        "retune takes the bundle as it is, so formats, name, out and min_precision make no sense": (
            lambda retune, formats, name, out, min_precision: (
                retune is not None and (bool(formats) or (name, out, min_precision) != (None, None, None))
            )
        ),
    }


class EvaluateSettings(Settings):
    """`lensmith evaluate`."""

    verb = "evaluate"
    positional = ("bundle", "data")

    bundle: Path = Field(description="Bundle folder or zip.")
    data: Path = Field(description="Labelled images: a folder, or a CSV of path,label.")
    part: Literal["auto", "train", "val", "test", "all"] = Field(
        "auto", description="auto: the test part where there is one, else all."
    )
    engine: str | None = Field(
        None, description="Another of the bundle's engines than the chosen one, as openvino or openvino-int8."
    )
    out: Path | None = Field(None, description="Where the HTML report and JSON go; evaluation/ by default.")


class PredictSettings(Settings):
    """`lensmith predict`."""

    verb = "predict"
    positional = ("bundle", "images")

    bundle: Path = Field(description="Bundle folder or zip.")
    images: list[str] = Field(min_length=1, description="Image files, folders, or - for paths on standard input.")
    top_k: int = Field(1, ge=1, description="Classes to name for each image.")
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="Output format; by the ending of --out, else csv."
    )
    out: Path | None = Field(None, description="File to write; standard output by default.")
    engine: str | None = Field(
        None, description="Another of the bundle's engines than the chosen one, as openvino or openvino-int8."
    )


class ServeSettings(Settings):
    """`lensmith serve`."""

    verb = "serve"
    positional = ("bundle",)
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "jwt_secret_file, jwt_key_file and jwks are three ways to check tokens, of which one may be named": (
            lambda jwt_secret_file, jwt_key_file, jwks: sum(map(bool, (jwt_secret_file, jwt_key_file, jwks))) > 1
        ),
    }

    bundle: Path = Field(description="Bundle folder or zip.")
    beside: Path | None = Field(None, description="A second bundle, answering where a request names it.")
    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    health_port: int | None = Field(
        None, ge=0, le=65535, description="Health and metrics on a port of their own, and on no other; 0 picks one."
    )
    workers: int = Field(1, ge=1, le=256, description="Processes; a dead one is replaced.")
    threads: int | None = Field(
        None, ge=1, description="Images worked on at once by each process; its share of the cores allowed by default."
    )
    batching: Literal["auto", "on", "off"] = Field(
        "auto", description="Answer queued images together; auto measures at start what is faster."
    )
    max_batch: int = Field(32, ge=1, le=1024, description="Images answered together at most, where batching is on.")
    deadline_ms: float = Field(
        180.0,
        gt=0,
        description="Longest an answer may take once its upload has arrived; refused at the door if it would.",
    )
    max_bytes: int = Field(5_000_000, ge=1, description="Largest upload of one image, in bytes.")
    max_pixels: int = Field(50_000_000, ge=1, description="Largest picture, in pixels, checked before decoding.")
    max_images: int = Field(32, ge=1, description="Most images of one request.")
    upload_memory: int = Field(
        256_000_000, ge=1, description="Bytes of uploads held at once by each process; more are refused."
    )
    upload_timeout_s: float = Field(30.0, gt=0, description="Seconds in which an upload must have arrived.")
    quota: str | None = Field(
        None,
        description="Images that one caller may send, as 200/minute, or none. By default 200/minute for callers with "
        "tokens, none without authentication.",
    )
    quota_store: str = Field(
        "memory",
        description="memory, or redis://HOST:PORT/DB shared by several replicas (password: LENSMITH_REDIS_PASSWORD).",
    )
    jwt_secret_file: Path | None = Field(
        None, description="File with the secret of HS256 tokens; or LENSMITH_JWT_SECRET holds it."
    )
    jwt_key_file: Path | None = Field(None, description="PEM file with the public key of RS256 or ES256 tokens.")
    jwks: str | None = Field(None, description="JSON Web Key Set with the public keys of tokens: https URL or file.")
    jwt_issuer: str = Field("lensmith", description="Issuer that tokens must name.")
    jwt_audience: str = Field("lensmith", description="Audience that tokens must name.")
    insecure: bool = Field(False, description="Listen beyond this machine without authentication.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or one JSON object each.")
    log_requests: bool = Field(False, description="Log each request, too.")
    log_file: Path | None = Field(None, description="Where log lines go; standard error by default.")
    grace_s: float = Field(10.0, ge=0, description="Seconds to finish what is under way after SIGTERM.")
    engine: str | None = Field(
        None, description="Another of the bundle's engines than the chosen one, as openvino or openvino-int8."
    )


class DeploySettings(Settings):
    """`lensmith deploy`."""

    verb = "deploy"
    positional = ("kind", "bundle")
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "a bundle is for systemd, docker and compose": (
            lambda kind, bundle: bundle is not None and kind in {"nginx", "prometheus"}
        ),
        "replica is for nginx, systemd and prometheus; compose has two of its own": (
            lambda kind, replica: bool(replica) and kind in {"docker", "compose"}
        ),
        "wheel and constraints are for docker and compose": (
            lambda kind, wheel, constraints: bool(wheel or constraints) and kind not in {"docker", "compose"}
        ),
        "tls_certificate and tls_key go together": (
            lambda tls_certificate, tls_key: (tls_certificate is None) != (tls_key is None)
        ),
        "tls_certificate is for nginx": lambda kind, tls_certificate: bool(tls_certificate) and kind != "nginx",
    }

    kind: Literal["nginx", "systemd", "docker", "compose", "prometheus"] = Field(description="What to write files for.")
    bundle: Path | None = Field(
        None,
        description="Bundle folder or zip: copied beside the files for docker and compose, named in them for systemd.",
    )
    out: Path | None = Field(None, description="Folder to write; deploy/KIND by default.")
    overwrite: bool = Field(False, description="Replace files of an earlier `lensmith deploy`; others in it stay.")
    replica: list[str] | None = Field(
        None, description="Where a replica answers, as 127.0.0.1:8001, again for each; by default ports 8001 and 8002."
    )
    listen: str = Field(
        "127.0.0.1:8080", description="Where nginx listens: HOST:PORT, or PORT alone for the whole world."
    )
    tls_certificate: Path | None = Field(None, description="PEM file, on the machine of nginx, with its certificates.")
    tls_key: Path | None = Field(None, description="PEM file, on the machine of nginx, with the certificate's key.")
    logs: Path = Field(Path("/var/log/nginx"), description="Folder of nginx's logs, on its machine.")
    venv: Path = Field(
        Path("/opt/lensmith"), description="Virtual environment of lensmith, on the machine that serves."
    )
    wheel: Path | None = Field(None, description="Wheel of lensmith to install in the image, instead of PyPI's.")
    constraints: Path | None = Field(
        None, description="pip constraints for the image; by default the versions that lensmith was tested with."
    )
    memory_mb: int = Field(2048, ge=256, description="Memory of each replica, in MiB; beyond it is killed.")
    cpus: float = Field(2.0, gt=0, description="Cores of each replica.")


class TokenSettings(Settings):
    """`lensmith token`."""

    verb = "token"
    positional = ("subject",)
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "secret_file and key_file are two ways to sign, of which one may be named": (
            lambda secret_file, key_file: secret_file is not None and key_file is not None
        ),
        "scopes must name at least one": lambda scopes: not scopes,
    }

    subject: str = Field(
        min_length=1, max_length=256, pattern=r"^[!-~]+$", description="Who will call: a name without spaces."
    )
    # Defaults are validated, too; written as a user would, they are shown so.
    scopes: Scopes = Field("predict", description="What they may do: predict, admin, or both as a,b.")  # type: ignore[arg-type]
    expires: Seconds = Field(  # type: ignore[assignment]
        "30d", le=31_622_400, description="How long it is good for, as 12h or 30d; 366d at most."
    )
    secret_file: Path | None = Field(
        None, description="File with the secret of HS256, made where there is none; or LENSMITH_JWT_SECRET holds it."
    )
    key_file: Path | None = Field(None, description="PEM file with the private key for RS256 or ES256.")
    kid: str | None = Field(
        None, min_length=1, max_length=128, pattern=r"^[!-~]+$", description="Name of the key in a JSON Web Key Set."
    )
    issuer: str = Field("lensmith", min_length=1, description="Issuer, as `lensmith serve --jwt-issuer` has it.")
    audience: str = Field("lensmith", min_length=1, description="Audience, as `lensmith serve --jwt-audience` has it.")


class BenchSettings(Settings):
    """`lensmith bench`."""

    verb = "bench"
    positional = ("target",)

    target: str = Field(description="URL of a service, or a bundle to start one for.")
    images: Path | None = Field(
        None, description="JPEG and PNG files to send; by default the bundle's golden images, or drawn ones."
    )
    clients: int | None = Field(
        None, ge=1, le=10_000, description="Connections; 16 by default, with a rate at most 1,024, as many as it takes."
    )
    rate: float | None = Field(
        None, gt=0, le=100_000, description="Requests a second, whatever the answers; by default each waits for one."
    )
    arrivals: Literal["poisson", "constant"] = Field(
        "poisson", description="With a rate: as independent callers come, or evenly."
    )
    duration: Seconds = Field(30.0, le=86_400, description="How long to measure, as 90s or 5m.")
    warmup: SecondsOrNone = Field(3.0, le=3600, description="How long before that, under the same load.")
    timeout: Seconds = Field(10.0, le=3600, description="After how long a request is given up.")
    slo_ms: float = Field(200.0, gt=0, description="Latency within which an answer is good.")
    form: bool = Field(False, description="Send multipart forms, as browsers do, instead of raw bodies.")
    token_file: Path | None = Field(None, description="File with a token to send; or LENSMITH_TOKEN holds it.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the arrivals and of the order of files.")
    out: Path | None = Field(None, description="Folder for bench.json and bench.png.")


class DemoSettings(Settings):
    """`lensmith demo`."""

    verb = "demo"

    out: Path = Field(Path("runs/demo"), description="Folder for data, run and report; used again by a second demo.")
    train_images: int = Field(6000, ge=100, description="Training images.")
    test_images: int = Field(2000, ge=20, description="Held-out images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random.")
    port: int = Field(0, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    keep_serving: bool = Field(False, description="Leave the service up at the end.")
