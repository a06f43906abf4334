"""The files for schedulers, as the schedulers' own tools and schemas read them."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cronsim import CronSim

from lensmith import api
from lensmith.cli import main
from lensmith.errors import SettingsError
from lensmith.ops.deploy.cron import CronSchedule

START = datetime(2027, 1, 30, 23, 58, 30, tzinfo=UTC)

EXPRESSIONS = [
    "* * * * *", "*/7 * * * *", "5,20-25,50 */5 * * *", "59 23 31 12 *", "0 0 29 2 *", "0 0 1,15 * *",
    "30 4 * * MON-fri", "0 12 * * 7", "0 12 * * 5-7", "0 9 1-7 feb,aug 1", "10-50/20 8-18/3 * jan-jun *",
    "0 0 */10 * *", "0 0 * */4 *", "0 0 * * */3", "@weekly", "@yearly",
]  # fmt: skip


@pytest.fixture
def analyze(program: Callable[..., str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    path = program("systemd-analyze", "systemd")

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        environment = {"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        return subprocess.run([path, "--no-pager", *args], capture_output=True, text=True, env=environment)

    return run


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pipeline.yaml").write_text("name: flowers\ndata: photos\ntrain: {epochs: 3}  # a few\n")
    monkeypatch.chdir(tmp_path)
    return Path("pipeline.yaml")


def elapses(analyze: Callable[..., Any], cron: CronSchedule, count: int) -> list[datetime]:
    """The first times, as systemd has them; of several lines the earliest each."""
    found: set[datetime] = set()
    for line in cron.on_calendar():
        said = analyze("calendar", f"--base-time=@{int(START.timestamp())}", f"--iterations={count}", line)
        assert said.returncode == 0, said.stderr
        rows = [row.partition(": ")[2] for row in said.stdout.splitlines() if row.strip().startswith(("Next", "Iter."))]
        found |= {datetime.strptime(row, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) for row in rows}
    return sorted(found)[:count]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_systemd_elapses_when_cron_does(expression: str, analyze: Callable[..., Any]) -> None:
    cron = CronSchedule.parse(expression)
    expected = CronSim(cron.text, START)
    assert elapses(analyze, cron, 12) == [next(expected) for _ in range(12)]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "0 fields"),
        ("0 3 * *", "4 fields"),
        ("0 0 3 * * *", "6 fields"),
        ("60 3 * * *", "minute '60' is not in 0 to 59"),
        ("0 24 * * *", "hour '24'"),
        ("0 3 32 * *", "day of month '32'"),
        ("0 3 * * 8", "day of week '8'"),
        ("0 3 * * monday", "day of week 'monday'"),
        ("0 5-3 * * *", "hour '5-3'"),
        ("*/0 * * * *", "minute '*/0'"),
        ("5/10 * * * *", "minute '5/10'"),
        ("0 3 30 2 *", "never"),
        ("0 3 */2 * 1", "*/"),
        ("@reboot", "@hourly"),
        ("0,, 3 * * *", "minute '0,,'"),
        ("٣ 3 * * *", "minute '٣'"),
    ],
)
def test_what_is_no_cron_is_refused_with_its_reason(expression: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        CronSchedule.parse(expression)
    assert reason in str(refused.value)


def test_systemd_finds_nothing_wrong_with_the_units(
    pipeline: Path, tmp_path: Path, analyze: Callable[..., Any]
) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/lensmith").symlink_to(sys.executable)
    made = api.deploy("schedule", pipeline, cron="15 6 13 * 5", venv=tmp_path / "venv", out=tmp_path / "units")
    assert made.files == ("lensmith-flowers.service", "lensmith-flowers.timer")
    for unit in made.files:
        checked = analyze("verify", "--man=no", str(made.folder / unit))
        assert (checked.returncode, checked.stderr) == (0, "")
    timer = (made.folder / "lensmith-flowers.timer").read_text()
    assert "OnCalendar=*-*-13 06:15:00\nOnCalendar=Fri *-*-* 06:15:00\n" in timer
    service = (made.folder / "lensmith-flowers.service").read_text()
    assert f"ExecStart={tmp_path}/venv/bin/lensmith pipeline run {tmp_path}/pipeline.yaml\n" in service
    assert f"WorkingDirectory={tmp_path}\n" in service
    assert "\nProtectSystem=strict\n" in service
    assert "\nPrivateTmp=yes\n" in service  # or there would be no /tmp that it may write


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/15 8-18 * * mon-fri", "@weekly"])
def test_kubernetes_finds_nothing_wrong_with_the_cron_job(cron: str, pipeline: Path, tmp_path: Path) -> None:
    made = api.deploy("schedule", pipeline, scheduler="kubernetes", cron=cron, out=tmp_path / "k8s", memory_mb=4096)
    parts = list(yaml.safe_load_all((made.folder / "cronjob.yaml").read_text()))
    kinds = {part["kind"]: part for part in parts if part}
    assert set(kinds) == {"PersistentVolumeClaim", "ConfigMap", "CronJob"}
    for part in kinds.values():
        kubernetes_validate.validate(part, "1.30", strict=True)
    spec = kinds["CronJob"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == (CronSchedule.parse(cron).text, "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "4096Mi"
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "lensmith-tracking"
    assert yaml.safe_load(kinds["ConfigMap"]["data"]["pipeline.yaml"]) == yaml.safe_load(pipeline.read_text())


def test_a_file_that_begins_with_blanks_is_the_same_in_the_cron_job(pipeline: Path, tmp_path: Path) -> None:
    pipeline.write_text("   # of the garden\nname: flowers\ndata: photos\n")
    made = api.deploy("schedule", pipeline, scheduler="kubernetes", out=tmp_path / "k8s")
    kept = list(yaml.safe_load_all((made.folder / "cronjob.yaml").read_text()))[1]
    assert kept["data"]["pipeline.yaml"] == pipeline.read_text()


def test_github_finds_nothing_wrong_with_the_workflow(pipeline: Path, tmp_path: Path) -> None:
    made = api.deploy("schedule", pipeline, scheduler="github", cron="30 4 * * mon", out=tmp_path / "github")
    (workflow,) = (made.folder / name for name in made.files)
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    said = subprocess.run([*check, str(workflow)], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
    content = yaml.safe_load(workflow.read_text())
    assert content[True]["schedule"] == [{"cron": "30 4 * * mon"}]  # YAML 1.1 takes `on` for true
    assert "lensmith pipeline run pipeline.yaml" in workflow.read_text()


def test_github_does_not_run_every_minute(pipeline: Path, tmp_path: Path) -> None:
    for cron in ("* * * * *", "*/3 * * * *", "0,58 * * * *"):
        with pytest.raises(SettingsError, match="5 minutes"):
            api.deploy("schedule", pipeline, scheduler="github", cron=cron, out=tmp_path / "github")
    assert not (tmp_path / "github").exists()


def test_a_path_that_a_file_cannot_hold_is_refused(pipeline: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my pipeline.yaml").write_bytes(pipeline.read_bytes())
    for target in ("systemd", "github"):
        with pytest.raises(SettingsError):
            api.deploy("schedule", tmp_path / "my pipeline.yaml", scheduler=target, out=tmp_path / "out")
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    with pytest.raises(SettingsError, match="repository"):
        api.deploy("schedule", tmp_path / "pipeline.yaml", scheduler="github", out=tmp_path / "out")


def test_bad_input_writes_nothing_and_exits_with_2(pipeline: Path, tmp_path: Path, capsys: Any) -> None:
    pipeline.write_text("name: flowers\ndata: photos\ngate: {accuracy_dorp: 1}\n")
    for extra in ([], ["--cron", "0 3 * *"]):
        with pytest.raises(SystemExit) as ended:
            main(["deploy", "schedule", str(pipeline), *extra, "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
    assert "gate.accuracy_drop is (line 3)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
