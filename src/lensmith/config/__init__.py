"""The settings of each verb; command line, Python functions and docs/settings.md are made from these classes.

So each setting has its type, default and description in one place.
"""

from lensmith.config.base import Settings
from lensmith.config.bundle import EvaluateSettings, ExportSettings, PredictSettings
from lensmith.config.data import (
    AgreementSettings,
    CheckSettings,
    DemoSettings,
    FetchSettings,
    ImportSettings,
    LabelDoctorSettings,
    LabelExportSettings,
    SplitSettings,
)
from lensmith.config.ops import BenchSettings, DeploySettings, TokenSettings
from lensmith.config.review import ReviewSettings
from lensmith.config.rollout import RolloutSettings
from lensmith.config.serving import ServeSettings
from lensmith.config.tracking import TrackingSettings, TrackSettings
from lensmith.config.training import TrainSettings
from lensmith.config.update import UpdateSettings

__all__ = [
    "AgreementSettings",
    "BenchSettings",
    "CheckSettings",
    "DemoSettings",
    "DeploySettings",
    "EvaluateSettings",
    "ExportSettings",
    "FetchSettings",
    "ImportSettings",
    "LabelDoctorSettings",
    "LabelExportSettings",
    "PredictSettings",
    "ReviewSettings",
    "RolloutSettings",
    "ServeSettings",
    "Settings",
    "SplitSettings",
    "TokenSettings",
    "TrackSettings",
    "TrackingSettings",
    "TrainSettings",
    "UpdateSettings",
]
