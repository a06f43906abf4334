"""`lensmith registry`: what people and programs get from each verb, and what they are told when it cannot be done."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Run
from lensmith import api
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.registry.client import client

Remake = Callable[..., Bundle]


@pytest.fixture
def run(run: Run, workspace: Path) -> Run:
    """`run(verb, …)` in a folder with an empty registry."""
    return run


@pytest.fixture(scope="module")
def pushed(colour_bundle: Bundle, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two versions of flowers, of which the second is champion; to be copied."""
    folder = tmp_path_factory.mktemp("flowers")
    shutil.copy(empty_database, folder / "mlflow.db")
    for version in ("old", "new"):
        shutil.copytree(colour_bundle.path, folder / version)
        fields = {"name": "flowers", "version": version, "metrics": {"accuracy": 0.9}}
        (folder / version / MANIFEST).write_text(colour_bundle.manifest.model_copy(update=fields).model_dump_json())
        api.Registry(str(folder / "mlflow.db")).push(folder / version, alias="champion")
    return folder / "mlflow.db"


@pytest.fixture
def flowers(run: Run, pushed: Path) -> Run:
    """The same, with two versions of flowers, of which the second is champion."""
    shutil.copy(pushed, "runs/mlflow.db")
    return run


def test_people_see_what_a_push_did(run: Run, remake: Remake) -> None:
    bundle = remake("bundle", name="flowers")
    code, out, err = run("registry", "push", bundle.path)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["flowers@1  pushed", "Next: lensmith registry alias flowers@1 champion"]
    assert run("registry", "push", bundle.path, "--alias", "champion")[1] == (
        "flowers@1  was there already, named champion\n"
    )
    assert "in MLflow" in run("registry", "push", bundle.path, "--name", "other")[1]


def test_people_see_models_and_versions(flowers: Run) -> None:
    _, out, _ = flowers("registry", "list")
    assert "flowers" in out
    assert "champion 2, previous 1" in out
    _, out, _ = flowers("registry", "show", "flowers")
    rows = [line.split() for line in out.splitlines()[2:]]
    assert [row[:5] for row in rows] == [["2", "champion", "90.00", "%", "new"], ["1", "previous", "90.00", "%", "old"]]
    _, out, _ = flowers("registry", "show", "flowers@champion")
    assert out.startswith("flowers@2  pushed")
    assert "lensmith" not in out.splitlines()[2]


def test_an_accuracy_that_somebody_has_changed_is_shown_as_it_is(flowers: Run) -> None:
    client("sqlite:///runs/mlflow.db").set_model_version_tag("flowers", "1", "lensmith.accuracy", "good")
    code, out, _ = flowers("registry", "show", "flowers")
    assert code == 0
    assert "good" in out


def test_an_empty_registry_is_no_error(run: Run) -> None:
    assert run("registry", "list")[:2] == (0, "No model is registered yet.\n")
    assert json.loads(run("registry", "list", "--json")[1]) == {"models": []}


def test_rollback_goes_back_and_forth(flowers: Run) -> None:
    assert flowers("registry", "rollback", "flowers")[1] == (
        "flowers@champion  names version 1 again, in the place of 2\n"
    )
    moved = json.loads(flowers("registry", "rollback", "flowers", "--json")[1])
    assert moved == {"name": "flowers", "alias": "champion", "before": "1", "now": "2", "previous": "1"}


def test_aliases_come_and_go(flowers: Run) -> None:
    assert flowers("registry", "alias", "flowers@1", "candidate")[1] == "flowers@candidate  names version 1\n"
    assert flowers("registry", "alias", "flowers@champion", "candidate")[1] == (
        "flowers@candidate  names version 2, before it 1\n"
    )
    assert flowers("registry", "alias", "flowers", "candidate", "--remove")[1] == (
        "flowers@candidate  is no longer there; it named version 2\n"
    )


def test_programs_get_json_of_every_verb(flowers: Run, remake: Remake) -> None:
    pushed = json.loads(flowers("registry", "push", remake("third", name="flowers", version="3").path, "--json")[1])
    assert (pushed["version"], pushed["new"], pushed["uploaded"], pushed["aliases"]) == ("3", True, True, [])
    shown = json.loads(flowers("registry", "show", "flowers", "--json")[1])
    assert [each["version"] for each in shown["versions"]] == ["3", "2", "1"]
    assert json.loads(flowers("registry", "show", "flowers@3", "--json")[1])["content"] == pushed["content"]
    pulled = json.loads(flowers("registry", "pull", "flowers@3", "--json")[1])
    assert Bundle.load(pulled["path"]).manifest.version == "3"


def test_a_name_works_wherever_a_bundles_path_does(flowers: Run, shared_colours: Path) -> None:
    name = "flowers@champion"
    code, out, _ = flowers("predict", name, shared_colours / "red" / "000.png")
    assert code == 0
    assert out.splitlines()[1].split(",")[1] == "red"
    code, out, _ = flowers("evaluate", name, shared_colours, "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == 1
    assert "flowers new" in flowers("bundle", "show", name)[1]
    assert flowers("bundle", "verify", name)[0] == 0
    assert json.loads(flowers("bundle", "diff", "flowers@1", name, "--json")[1])["equal"] is False
    for kind in ("docker", "compose"):
        assert flowers("deploy", kind, name)[0] == 0
    assert Bundle.load("deploy/docker/bundle").manifest.version == "new"
    assert Bundle.load("deploy/compose/bundles/current").manifest.version == "new"


@pytest.mark.slow
def test_bench_starts_a_service_for_a_name(flowers: Run) -> None:
    code, out, _ = flowers("bench", "flowers@champion", "--duration", "1s", "--warmup-time", "0s", "--json")
    assert code == 0
    assert json.loads(out)["requests"] > 0


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        (["registry", "show", "flower"], "RegistryError", "Near it are flowers"),
        (["registry", "show", "zebras"], "RegistryError", "It has flowers"),
        (["registry", "show", "flowers@9"], "RegistryError", "It has 2, 1"),
        (["registry", "pull", "flowers@chamion"], "RegistryError", "It has champion (version 2)"),
        (["registry", "pull", "flowers"], "RegistryError", "NAME@ALIAS or NAME@VERSION"),
        (["registry", "alias", "flowers@1", "v3"], "RegistryError", "'v3'"),
        (["registry", "alias", "flowers", "nothing", "--remove"], "RegistryError", "There is none"),
        (["registry", "rollback", "zebras"], "RegistryError", "It has flowers"),
        (["registry", "push", "lensmith.yaml"], "BundleError", "There is none"),
        (["registry", "list", "--tracking-uri", "file:///srv"], "RegistryError", "file:///srv"),
        (["registry", "list", "--tracking-uri", "none.db"], "RegistryError", "There is none"),
        (["registry", "list", "--tracking-uri", "http://127.0.0.1:1"], "RegistryUnreachableError", "127.0.0.1:1"),
        (["predict", "flowers@nobody", "x.png"], "RegistryError", "It has champion"),
        (["bench", "flowers@7"], "RegistryError", "It has 2, 1"),
        (["deploy", "docker", "flowers@7"], "RegistryError", "It has 2, 1"),
    ],
)
def test_bad_input_is_told_in_one_paragraph(args: list[str], error: str, said: str, flowers: Run) -> None:
    code, out, err = flowers(*args, "--json")
    assert (code, json.loads(out)["error"]) == (2, error)
    assert said in err
    assert err.count("\n") == 1


def test_nothing_is_made_where_nothing_was_to_be_read(run: Run, tmp_path: Path) -> None:
    run("registry", "list", "--tracking-uri", "elsewhere/none.db")
    assert not Path("elsewhere").exists()
