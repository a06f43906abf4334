"""Settings of the service and of what is around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Scopes, Seconds, SecondsOrNone


class ServeSettings(Settings):
    """`lensmith serve`."""

    verb = "serve"
    positional = ("bundle",)
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "jwt_secret_file, jwt_key_file and jwks are three ways to check tokens, of which one may be named": (
            lambda jwt_secret_file, jwt_key_file, jwks: sum(map(bool, (jwt_secret_file, jwt_key_file, jwks))) > 1
        ),
    }

    bundle: Path = Field(
        description="Bundle folder or zip; or NAME@ALIAS of the registry, which is followed, or NAME@VERSION."
    )
    tracking_uri: str | None = Field(
        None, description="MLflow's registry, where the bundle comes from there; see the settings of tracking."
    )
    poll_s: float = Field(5.0, ge=0.1, le=3600, description="Seconds between two looks into the registry.")
    beside: Path | None = Field(
        None, description="A second bundle, answering where a request names it; NAME@ALIAS, too, as it is at the start."
    )
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
    feedback_answers: int = Field(
        100_000, ge=0, le=10_000_000, description="Answers of the last day that POST /feedback knows; 0: none."
    )
    keep: Path | None = Field(
        None, description="Folder in which uploads are kept for labelling; by default none is (docs/feedback.md)."
    )
    keep_below: float = Field(
        0.6, ge=0, le=1, description="Uploads are kept where the confidence is below this, or the model abstains."
    )
    keep_share: float = Field(0.0, ge=0, le=1, description="Share of all other uploads that is kept, drawn at random.")
    keep_bytes: int = Field(
        1_000_000_000, ge=1, description="Bytes of kept uploads; the oldest are removed. 100,000 uploads at most."
    )
    keep_days: float = Field(30.0, gt=0, le=3650, description="Days after which a kept upload is removed.")
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
            lambda kind, replica: bool(replica) and kind in {"docker", "compose", "schedule"}
        ),
        "cron and target are for schedule": (
            lambda kind, cron, target: kind != "schedule" and (cron, target) != ("0 3 * * *", "systemd")
        ),
        "wheel and constraints are for docker and compose": (
            lambda kind, wheel, constraints: bool(wheel or constraints) and kind not in {"docker", "compose"}
        ),
        "tls_certificate and tls_key go together": (
            lambda tls_certificate, tls_key: (tls_certificate is None) != (tls_key is None)
        ),
        "tls_certificate is for nginx": lambda kind, tls_certificate: bool(tls_certificate) and kind != "nginx",
    }

    kind: Literal["nginx", "systemd", "docker", "compose", "prometheus", "schedule"] = Field(
        description="What to write files for."
    )
    bundle: Path | None = Field(
        None,
        description="Bundle folder or zip: named in the files for systemd, copied beside them for docker and compose, "
        "for which it may be NAME@ALIAS, too. For schedule: the pipeline's file.",
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
    cron: str = Field("0 3 * * *", description="When schedule runs: minute, hour, day of month, month, day of week.")
    target: Literal["systemd", "kubernetes", "github"] = Field("systemd", description="Which scheduler it is.")


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

    target: str = Field(description="URL of a service, or a bundle (also NAME@ALIAS) to start one for.")
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
