"""One of the processes that `launch` starts: `python -m lensmith.train.worker RUN`."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from lensmith.errors import LensmithError
from lensmith.machine import share_cores
from lensmith.train.interruption import die_of_signals


def main(run: Path) -> int:
    """Train as this rank, and say in a file what went wrong; returns the exit code."""
    die_of_signals()
    share_cores()
    from lensmith.train.distributed import World
    from lensmith.train.fit import train_together
    from lensmith.train.launch import end_with_parent, write_error
    from lensmith.train.run import Run

    end_with_parent()
    world = World.join()
    try:
        train_together(Run.open(run), world)
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
