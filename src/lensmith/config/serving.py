"""Settings of `lensmith serve`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Host, ImageFormats


class ServeSettings(Settings):
    """`lensmith serve`."""

    verb = "serve"
    positional = ("bundle",)
    panels: ClassVar[Mapping[str, str]] = {
        "Registry": "tracking_uri poll_s beside",
        "Speed": "threads batching max_batch engine",
        "Limits": "deadline_ms formats max_bytes max_pixels max_images upload_memory upload_timeout_s grace_s quota "
        "quota_store",
        "Authentication": "jwt_secret_file jwt_key_file jwks jwt_issuer jwt_audience insecure",
        "Logs and health": "health_port log_format log_requests log_file",
        "Feedback": "feedback_answers keep keep_below keep_share keep_bytes keep_days",
    }
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "jwt_secret_file, jwt_key_file and jwks are three ways to check tokens, of which only one may be set": (
            lambda jwt_secret_file, jwt_key_file, jwks: sum(map(bool, (jwt_secret_file, jwt_key_file, jwks))) > 1
        ),
        "port and health_port are the same (leave health_port out to have health checks and metrics on the port)": (
            lambda port, health_port: port != 0 and port == health_port
        ),
        "max_bytes is larger than upload_memory, so that the largest uploads would always be refused": (
            lambda max_bytes, upload_memory: max_bytes > upload_memory
        ),
    }

    bundle: Path = Field(
        description="Bundle folder or zip; or NAME@ALIAS in the registry, whose changes are followed, or NAME@VERSION."
    )
    tracking_uri: str | None = Field(
        None, description="MLflow server or database of the registry; that of the `tracking` settings by default."
    )
    poll_s: float = Field(5.0, ge=0.1, le=3600, description="Seconds between two polls of the registry.")
    beside: Path | None = Field(
        None, description="Second bundle, for requests that name it; a NAME@ALIAS is resolved once, at the start."
    )
    host: Host = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    health_port: int | None = Field(
        None, ge=0, le=65535, description="Separate port for health checks and metrics; 0 picks a free one."
    )
    workers: int = Field(1, ge=1, le=256, description="Number of worker processes; a dead one is replaced.")
    threads: int | None = Field(
        None,
        ge=1,
        description="Images processed at once by each worker process; by default its share of the available cores.",
    )
    batching: Literal["auto", "on", "off"] = Field(
        "auto", description="Dynamic batching of queued images; auto measures at start whether it is faster."
    )
    max_batch: int = Field(32, ge=1, le=1024, description="Largest batch of dynamic batching, in images.")
    deadline_ms: float = Field(
        180.0,
        gt=0,
        description="Deadline from the end of the upload to the answer; requests that would miss it are refused. "
        "Longer by default where an image takes more than a third of it.",
    )
    formats: ImageFormats = Field(
        ("jpeg", "png"),
        description="Image formats to accept, with commas: jpeg, png, webp, bmp, tiff, gif, avif, heic, jp2, ppm.",
    )
    max_bytes: int = Field(5_000_000, ge=1, description="Largest upload of one image, in bytes.")
    max_pixels: int = Field(50_000_000, ge=1, description="Largest image, in pixels, checked before decoding.")
    max_images: int = Field(32, ge=1, description="Most images in one request.")
    upload_memory: int = Field(
        256_000_000, ge=1, description="Most bytes of uploads in the memory of a worker process; more are refused."
    )
    upload_timeout_s: float = Field(30.0, gt=0, description="Seconds within which an upload must be complete.")
    quota: str | None = Field(
        None,
        description="Rate limit: images per caller, as 200/minute, or none. By default 200/minute for callers with "
        "tokens, none without authentication.",
    )
    quota_store: str = Field(
        "memory", description="memory, or redis://HOST:PORT/DB shared by replicas (password: LENSMITH_REDIS_PASSWORD)."
    )
    jwt_secret_file: Path | None = Field(
        None, description="File with the secrets of HS256 tokens, one a line; or set LENSMITH_JWT_SECRET."
    )
    jwt_key_file: Path | None = Field(None, description="PEM file with the public keys of RS256 or ES256 tokens.")
    jwks: str | None = Field(None, description="JSON Web Key Set with the public keys of tokens: https URL or file.")
    jwt_issuer: str = Field("lensmith", description="Issuer that tokens must name.")
    jwt_audience: str = Field("lensmith", description="Audience that tokens must name.")
    insecure: bool = Field(False, description="Listen beyond this machine without authentication.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines as text, or as one JSON object each.")
    log_requests: bool = Field(False, description="Also log each request.")
    log_file: Path | None = Field(None, description="Log file; standard error by default.")
    feedback_answers: int = Field(
        100_000,
        ge=0,
        le=10_000_000,
        description="Most answers, of the last day, that POST /feedback accepts labels for; 0 for none.",
    )
    keep: Path | None = Field(
        None,
        description="Active learning: folder for uncertain uploads to be labelled; none by default (docs/feedback.md).",
    )
    keep_below: float = Field(
        0.6, ge=0, le=1, description="Store uploads whose confidence is below this, or for which the model abstains."
    )
    keep_share: float = Field(0.0, ge=0, le=1, description="Share of all other uploads to store, drawn at random.")
    keep_bytes: int = Field(
        1_000_000_000,
        ge=1,
        description="Most bytes of stored uploads, 100,000 uploads at most; the oldest are removed.",
    )
    keep_days: float = Field(30.0, gt=0, le=3650, description="Days after which a stored upload is removed.")
    grace_s: float = Field(10.0, ge=0, description="Seconds for running requests to finish after SIGTERM.")
    engine: str | None = Field(
        None, description="Engine of the bundle to use instead of the selected one, as openvino or openvino-int8."
    )
