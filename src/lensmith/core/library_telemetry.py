"""Telemetry and update checks of libraries, which are turned off before any of them is imported.

`import lensmith` calls `turn_off`, so it holds in every process of lensmith and in every program that imports it first.
Processes that import something else, such as MLflow's server, inherit the environment variables.
"""

import os
import sys

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.31 on writes a device identifier and asks for its host
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # Hugging Face Hub, through timm and transformers
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # its import asks PyPI for a newer version
    "NNCF_CI": "1",  # NNCF has no other switch
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "true",  # what other libraries agree on
}
"""Environment variable → the value that turns telemetry or an update check off."""
PACKAGES = ("openvino_telemetry",)
"""Packages that do nothing but telemetry and have no switch but a file in the home folder: they are not imported.
OpenVINO and NNCF then behave as where the package is not installed.
"""


def turn_off() -> None:
    """Turn the telemetry of libraries off, except where a variable says otherwise; an empty one says nothing."""
    for name, value in VARIABLES.items():
        if not os.environ.get(name, "").strip():
            os.environ[name] = value
    for package in PACKAGES:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # `import` of it raises ImportError
