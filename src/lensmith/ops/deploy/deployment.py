"""A validated deployment: addresses of the replicas, and the service's settings as environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from lensmith.config import DeploySettings, ServeSettings
from lensmith.config.values import as_text
from lensmith.errors import SettingsError

Files: TypeAlias = Mapping[str, str | Path]
"""Path in the folder → its text, or a file or folder to copy there."""

DEFAULT_REPLICAS = ("127.0.0.1:8001", "127.0.0.1:8002")
"""Two replicas on the machine of the proxy."""

_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}")
_PATH = re.compile(r"[A-Za-z0-9._/+@=~-]+")

_RESERVED = {
    "bundle", "beside", "host", "port", "health_port", "insecure", "keep", "log_file", "quota_store",
    "jwt_secret_file", "jwt_key_file", "jwks",
}  # fmt: skip
"""Settings that the files set themselves: addresses, paths of this machine, and authentication."""


@dataclass(frozen=True)
class Deployment:
    """Validated input of all templates.

    Attributes:
        settings: settings of `lensmith deploy`.
        serve: settings of `lensmith serve`, from LENSMITH_SERVE_<NAME> and lensmith.yaml.
        replicas: HOST:PORT of each replica.
    """

    settings: DeploySettings
    serve: ServeSettings
    replicas: tuple[str, ...]

    @classmethod
    def of(cls, settings: DeploySettings) -> Deployment:
        """Validate whatever could break the syntax of a file.

        Raises:
            SettingsError: an address or path that such files cannot hold, or unusable settings of `lensmith serve`.
        """
        replicas = tuple(settings.replica or DEFAULT_REPLICAS)
        listen = settings.listen if ":" in settings.listen else f"localhost:{settings.listen}"
        wrong = [f"{each!r}" for each in (*replicas, listen) if not _ADDRESS.fullmatch(each)]
        if wrong or len(set(replicas)) < len(replicas):
            raise SettingsError(
                "Addresses of the form HOST:PORT were expected, each replica once.",
                f"{', '.join(wrong or replicas)} arrived.",
                "Correct --replica or --listen, as in --replica 127.0.0.1:8001 --replica 127.0.0.1:8002.",
            )
        paths = (settings.tls_certificate, settings.tls_key, settings.logs, settings.venv)
        odd = [str(path) for path in paths if path and not (path.is_absolute() and _PATH.fullmatch(str(path)))]
        if odd:
            raise SettingsError(
                "Absolute paths without blanks and quotes were expected, as they go into other programs' files.",
                f"{', '.join(map(repr, odd))} arrived.",
                "Use other names.",
            )
        return cls(settings, ServeSettings.resolve({"bundle": settings.bundle or "bundle"}), replicas)

    @property
    def environment(self) -> dict[str, str]:
        """Settings of the service other than defaults, as environment variables; log lines are JSON."""
        fields = {name: field.default for name, field in ServeSettings.model_fields.items() if name not in _RESERVED}
        changed = {name: getattr(self.serve, name) for name in fields if getattr(self.serve, name) != fields[name]}
        values = {"log_format": "json", **changed}
        return {f"LENSMITH_SERVE_{name.upper()}": as_text(value) for name, value in sorted(values.items())}
