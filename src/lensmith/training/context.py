"""What the parts of a training share: the run, what learns, how far it is, and where events and errors go."""

from dataclasses import dataclass

from lensmith.training.data_errors import DataErrors
from lensmith.training.learner import Learner
from lensmith.training.run_dir.progress import TrainingState
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import TrainingSchedule
from lensmith.training.signals import Interruption


@dataclass(frozen=True)
class TrainingContext:
    """One training, as its parts see it.

    Attributes:
        run: the run folder.
        learner: the network, its optimizer and loss, its device and the ranks.
        schedule: the run's phases and learning rates.
        state: the position and figures, which the parts update.
        recorder: the run's events and messages.
        data_errors: the files and losses that are to be named.
        interruption: Ctrl-C and SIGTERM, as a request to stop.
    """

    run: Run
    learner: Learner
    schedule: TrainingSchedule
    state: TrainingState
    recorder: Recorder
    data_errors: DataErrors
    interruption: Interruption
