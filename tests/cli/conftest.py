"""One way to call the command line in this process."""

import pytest

from fixtures.command_line import Run
from lensmith.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("data", "check", folder)` → exit code, standard output, standard error."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call
