"""Settings of `lensmith deploy`, `token` and `bench`: operations around the service."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Scopes, Seconds, SecondsOrNone


class DeploySettings(Settings):
    """`lensmith deploy`."""

    verb = "deploy"
    positional = ("kind", "bundle")
    renamed: ClassVar[Mapping[str, str]] = {"target": "scheduler"}
    panels: ClassVar[Mapping[str, str]] = {
        "nginx": "listen tls_certificate tls_key logs",
        "Docker": "wheel constraints",
        "Schedule": "cron scheduler",
    }
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "a bundle is for systemd, docker and compose": (
            lambda kind, bundle: bundle is not None and kind in {"nginx", "prometheus"}
        ),
        "replica is for nginx, systemd and prometheus; compose has two of its own": (
            lambda kind, replica: bool(replica) and kind in {"docker", "compose", "schedule"}
        ),
        "cron and scheduler are for schedule": (
            lambda kind, cron, scheduler: kind != "schedule" and (cron, scheduler) != ("0 3 * * *", "systemd")
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
        description="Kind of deployment files to write."
    )
    bundle: Path | None = Field(
        None,
        description="Bundle folder or zip: for systemd the files refer to it, for docker and compose it is copied "
        "beside them, and may also be NAME@ALIAS. For schedule: the pipeline's file.",
    )
    out: Path | None = Field(None, description="Folder to write; deploy/KIND by default.")
    overwrite: bool = Field(False, description="Replace files of an earlier `lensmith deploy`; other files stay.")
    replica: list[str] | None = Field(
        None, description="Address of a replica, as 127.0.0.1:8001; can be repeated; by default ports 8001 and 8002."
    )
    listen: str = Field(
        "127.0.0.1:8080", description="Address that nginx listens on: HOST:PORT, or PORT alone for all addresses."
    )
    tls_certificate: Path | None = Field(None, description="PEM file with the certificates, on the machine of nginx.")
    tls_key: Path | None = Field(None, description="PEM file with the private key, on the machine of nginx.")
    logs: Path = Field(Path("/var/log/nginx"), description="Folder for the logs of nginx, on its machine.")
    venv: Path = Field(
        Path("/opt/lensmith"), description="Virtual environment of lensmith, on the machine that serves."
    )
    wheel: Path | None = Field(None, description="Wheel of lensmith to install in the image; PyPI's by default.")
    constraints: Path | None = Field(
        None, description="pip constraints file for the image; by default the versions that lensmith was tested with."
    )
    memory_mb: int = Field(2048, ge=256, description="Memory limit of each replica in MiB, beyond which it is killed.")
    cpus: float = Field(2.0, gt=0, description="CPU limit of each replica, in cores.")
    cron: str = Field("0 3 * * *", description="Cron schedule: minute, hour, day of month, month, day of week.")
    scheduler: Literal["systemd", "kubernetes", "github"] = Field(
        "systemd", description="Scheduler to write files for."
    )


class TokenSettings(Settings):
    """`lensmith token`."""

    verb = "token"
    positional = ("subject",)
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "secret_file and key_file are two ways to sign, of which only one may be set": (
            lambda secret_file, key_file: secret_file is not None and key_file is not None
        ),
        "scopes must name at least one": lambda scopes: not scopes,
    }

    subject: str = Field(
        min_length=1, max_length=256, pattern=r"^[!-~]+$", description="Name of the caller, without spaces."
    )
    # Defaults are validated, too, and the help shows them as they are written here.
    scopes: Scopes = Field("predict", description="Permissions of the caller: predict, admin, or both as a,b.")  # type: ignore[arg-type]
    expires: Seconds = Field(  # type: ignore[assignment]
        "30d", le=31_622_400, description="Lifetime of the token, as 12h or 30d; at most 366d."
    )
    secret_file: Path | None = Field(
        None, description="File with the secret of HS256, generated if it is missing; or set LENSMITH_JWT_SECRET."
    )
    key_file: Path | None = Field(None, description="PEM file with the private key for RS256 or ES256.")
    kid: str | None = Field(
        None, min_length=1, max_length=128, pattern=r"^[!-~]+$", description="Key ID in a JSON Web Key Set (JWKS)."
    )
    issuer: str = Field("lensmith", min_length=1, description="Issuer; that of `lensmith serve --jwt-issuer`.")
    audience: str = Field("lensmith", min_length=1, description="Audience; that of `lensmith serve --jwt-audience`.")


class BenchSettings(Settings):
    """`lensmith bench`."""

    verb = "bench"
    positional = ("target",)
    renamed: ClassVar[Mapping[str, str]] = {"images": "image_files", "warmup": "warmup_time"}
    panels: ClassVar[Mapping[str, str]] = {"Requests": "image_files form token_file timeout arrivals seed"}

    target: str = Field(description="URL of a service, or a bundle (also NAME@ALIAS) to start a service for.")
    image_files: Path | None = Field(
        None,
        description="Folder of JPEG and PNG files to send; by default the bundle's golden images, or synthetic ones.",
    )
    clients: int | None = Field(
        None, ge=1, le=10_000, description="Connections; 16 by default, with a rate as many as needed, up to 1,024."
    )
    rate: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Open loop: requests per second; by default a closed loop, where each connection awaits its "
        "answer.",
    )
    arrivals: Literal["poisson", "constant"] = Field(
        "poisson", description="Arrivals of an open loop: poisson as of independent callers, or constant."
    )
    duration: Seconds = Field("30s", le=86_400, description="Duration of the measurement, as 90s or 5m.")  # type: ignore[assignment]
    warmup_time: SecondsOrNone = Field(  # type: ignore[assignment]
        "3s", le=3600, description="Duration of the warm-up before it, under the same load, as 3s; 0 for none."
    )
    timeout: Seconds = Field("10s", le=3600, description="Time after which a request fails, as 10s.")  # type: ignore[assignment]
    slo_ms: float = Field(200.0, gt=0, description="Latency objective in milliseconds.")
    form: bool = Field(False, description="Send multipart forms, as browsers do, instead of raw bodies.")
    token_file: Path | None = Field(None, description="File with a token to send; or set LENSMITH_TOKEN.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the arrivals and of the order of files.")
    out: Path | None = Field(None, description="Folder for bench.json and bench.png.")
