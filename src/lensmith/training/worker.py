"""One rank's process, which `launch` starts: `python -m lensmith.training.worker RUN`."""

import sys
import traceback
from contextlib import nullcontext
from pathlib import Path

from lensmith.core.machine import share_cores
from lensmith.core.standard_streams import tolerate_full_stderr
from lensmith.errors import LensmithError
from lensmith.training.signals import end_on_signals


def main(run: Path) -> int:
    """Train as this rank, and write an error to a file for `launch`; returns the exit code."""
    tolerate_full_stderr()
    end_on_signals()
    share_cores()
    from lensmith.training.launch import end_with_parent, write_error
    from lensmith.training.microbatch.distributed import World
    from lensmith.training.run_dir.lock import locked_by_ranks
    from lensmith.training.run_dir.run import Run
    from lensmith.training.trainer import Trainer

    end_with_parent()
    world = World.join()
    try:
        with locked_by_ranks(run) if world.is_rank_zero else nullcontext():
            Trainer(world=world).run(Run.open(run))
    except LensmithError as error:
        write_error(error, world.rank)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        write_error(error, world.rank)
        return 1
    finally:
        world.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
