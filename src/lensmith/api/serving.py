"""The service and what surrounds it: serve, load test, tokens, deployment files, uploads stored for labelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given, locate, located

if TYPE_CHECKING:
    from lensmith.data.label_export.export import LabelExport
    from lensmith.feedback.dataset import FeedbackExport
    from lensmith.feedback.folder import DeletedUploads, UploadSummary
    from lensmith.ops.deploy.run import DeployResult
    from lensmith.ops.loadtest.results import LoadTestResult
    from lensmith.ops.token import Token


@documented(config.ServeSettings)
def serve(
    bundle: StrPath | None = None, *,
    tracking_uri: str | None = None, poll_s: float = default(5.0), beside: StrPath | None = None,
    host: str = default("127.0.0.1"), port: int = default(8000), health_port: int | None = None,
    workers: int = default(1), threads: int | None = None, batching: Literal["auto", "on", "off"] = default("auto"),
    max_batch: int = default(32), deadline_ms: float = default(180.0),
    formats: str | Sequence[str] = default(('jpeg', 'png')), max_bytes: int = default(5000000),
    max_pixels: int = default(50000000), max_images: int = default(32), upload_memory: int = default(256000000),
    upload_timeout_s: float = default(30.0), quota: str | None = None, quota_store: str = default("memory"),
    jwt_secret_file: StrPath | None = None, jwt_key_file: StrPath | None = None, jwks: str | None = None,
    jwt_issuer: str = default("lensmith"), jwt_audience: str = default("lensmith"), insecure: bool = default(False),
    log_format: Literal["text", "json"] = default("text"), log_requests: bool = default(False),
    log_file: StrPath | None = None, feedback_answers: int = default(100000), keep: StrPath | None = None,
    keep_below: float = default(0.6), keep_share: float = default(0.0), keep_bytes: int = default(1000000000),
    keep_days: float = default(30.0), grace_s: float = default(10.0), engine: str | None = None,
) -> None:  # fmt: skip
    """Serve a bundle over HTTP until stopped. NAME@ALIAS is followed: the service loads what the alias names later."""
    arguments = given(locals())
    from lensmith.serving import platform
    from lensmith.serving.run import serve as run

    run(config.ServeSettings.resolve({**platform.settings(), **arguments}))


@documented(config.BenchSettings)
def bench(
    target: StrPath, *,
    image_files: StrPath | None = None, clients: int | None = None, rate: float | None = None,
    arrivals: Literal["poisson", "constant"] = default("poisson"), duration: float | str = default("30s"),
    warmup_time: float | str = default("3s"), timeout: float | str = default("10s"), slo_ms: float = default(200.0),
    form: bool = default(False), token_file: StrPath | None = None, seed: int = default(0), out: StrPath | None = None,
) -> LoadTestResult:  # fmt: skip
    """Load-test a service at a URL, or one that is started for a bundle."""
    settings = config.BenchSettings.resolve({**given(locals()), "target": str(target)})
    if "://" not in settings.target:
        settings = settings.model_copy(update={"target": str(locate(settings.target))})
    from lensmith.ops.loadtest.run import bench as run

    return run(settings)


@documented(config.TokenSettings)
def token(
    subject: str, *,
    scopes: str | Sequence[str] = default("predict"), expires: float | str = default("30d"),
    secret_file: StrPath | None = None, key_file: StrPath | None = None, kid: str | None = None,
    issuer: str = default("lensmith"), audience: str = default("lensmith"),
) -> Token:  # fmt: skip
    """Make a token with which somebody may call the service."""
    settings = config.TokenSettings.resolve(given(locals()))
    from lensmith.ops.token import token as run

    return run(settings)


@documented(config.DeploySettings)
def deploy(
    kind: Literal["nginx", "systemd", "docker", "compose", "prometheus", "schedule"], bundle: StrPath | None = None, *,
    out: StrPath | None = None, overwrite: bool = default(False), replica: Sequence[str] | None = None,
    listen: str = default("127.0.0.1:8080"), tls_certificate: StrPath | None = None, tls_key: StrPath | None = None,
    logs: StrPath = default("/var/log/nginx"), venv: StrPath = default("/opt/lensmith"), wheel: StrPath | None = None,
    constraints: StrPath | None = None, memory_mb: int = default(2048), cpus: float = default(2.0),
    cron: str = default("0 3 * * *"), scheduler: Literal["systemd", "kubernetes", "github"] = default("systemd"),
) -> DeployResult:  # fmt: skip
    """Write the files of a deployment: nginx, systemd, Docker, Compose, Prometheus or a scheduler."""
    settings = config.DeploySettings.resolve(given(locals()))
    if settings.kind in ("docker", "compose"):  # whose files contain a copy of the bundle
        settings = located(settings, "bundle")
    from lensmith.ops.deploy.run import deploy as run

    return run(settings)


class FeedbackFolder:
    """Uploads that a service has stored for labelling.

    Args:
        folder: Folder that `keep` of `serve` names.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = folder

    def summary(self) -> UploadSummary:
        """Count the uploads: by predicted class, by true label, by the reason why they were stored."""
        from lensmith.feedback.folder import summarise

        return summarise(self.folder)

    def export(
        self,
        out: StrPath,
        unlabelled: StrPath | None = None,
        *,
        relabel: StrPath | None = None,
        exclude: StrPath | None = None,
    ) -> FeedbackExport:
        """Make an image folder of the uploads whose true label is known.

        Args:
            out: New folder, or an image folder to add to.
            unlabelled: Folder for those without a true label, by predicted class.
            relabel: Manifest of a review of the uploads; its labels go before those of feedback.
            exclude: List of uploads to leave out, such as the one that a review has written.
        """
        from lensmith.feedback.dataset import export

        return export(self.folder, out, unlabelled, relabel, exclude)

    def export_labels(
        self, out: StrPath, format: Literal["label-studio", "cvat", "coco"] = "label-studio"
    ) -> LabelExport:
        """Write files for a labelling tool that name all uploads: answers as pre-annotations, labels as annotations.

        Args:
            out: New folder for the files.
            format: Annotation format.
        """
        from lensmith.feedback.label_export import export_uploads

        return export_uploads(self.folder, format, out)

    def delete(
        self, *, older_than: float | str | None = None, request_ids: Sequence[str] = (), everything: bool = False
    ) -> DeletedUploads:
        """Delete uploads.

        Args:
            older_than: Age from which they are deleted, as `30d` or in seconds.
            request_ids: Requests whose uploads are deleted.
            everything: Delete all of them.
        """
        from lensmith.feedback.folder import delete

        return delete(self.folder, older_than, request_ids, everything)
