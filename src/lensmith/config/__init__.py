"""The settings of each verb.

The command line is made from these classes, so a setting, its type, its default and its help stand in one place.
"""

from lensmith.config.base import Settings
from lensmith.config.bundle import EvaluateSettings, ExportSettings, PredictSettings
from lensmith.config.data import FetchSettings, SplitSettings
from lensmith.config.demo import DemoSettings
from lensmith.config.rollout import RolloutSettings
from lensmith.config.serving import BenchSettings, DeploySettings, ServeSettings, TokenSettings
from lensmith.config.tracking import TrackingSettings, TrackSettings
from lensmith.config.training import TrainSettings

__all__ = [
    "BenchSettings",
    "DemoSettings",
    "DeploySettings",
    "EvaluateSettings",
    "ExportSettings",
    "FetchSettings",
    "PredictSettings",
    "RolloutSettings",
    "ServeSettings",
    "Settings",
    "SplitSettings",
    "TokenSettings",
    "TrackSettings",
    "TrackingSettings",
    "TrainSettings",
]
