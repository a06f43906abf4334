"""Sources of a setting's value, and the reports of mistakes."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lensmith.config import (
    BenchSettings,
    DeploySettings,
    ExportSettings,
    ServeSettings,
    Settings,
    SplitSettings,
    TokenSettings,
    TrackingSettings,
    TrainSettings,
)
from lensmith.config.base import read_yaml
from lensmith.errors import SettingsError

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_flag_goes_over_environment_over_recipe_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lensmith.yaml").write_text("train: {epochs: 2, lr: 0.2, seed: 2, batch_size: 2}\n")
    monkeypatch.setenv("LENSMITH_TRAIN_EPOCHS", "4")
    monkeypatch.setenv("LENSMITH_TRAIN_LR", "0.4")
    settings = TrainSettings.resolve({"data": "x", "epochs": 5}, {"epochs": 3, "lr": 0.3, "seed": 3})
    assert (settings.epochs, settings.lr, settings.seed, settings.batch_size, settings.patience) == (5, 0.4, 3, 2, 5)


def test_all_mistakes_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_SERVE_PORT", "lots")
    with pytest.raises(SettingsError) as caught:
        ServeSettings.resolve({"max_bytes": 0, "prot": 1})
    text = str(caught.value)
    assert all(part in text for part in ("port = 'lots'", "max_bytes = 0", "prot is no setting", "bundle is missing"))
    assert "\n" not in text


CONTRADICTIONS = [
    ({"sizes": "64,96", "image_size": 64}, "sizes image_size"),
    ({"sizes": "64,96", "epochs": 1}, "sizes epochs"),
    ({"unfreeze_every": 1, "trainable_stages": 0}, "unfreeze_every trainable_stages"),
    ({"plateau_factor": 0.5}, "plateau_factor schedule"),
    ({"plateau_patience": 3, "schedule": "constant"}, "plateau_patience schedule"),
    ({"sync_batch_norm": True}, "sync_batch_norm batch_norm"),
    ({"sampling": "balanced", "class_weights": "balanced"}, "sampling class_weights"),
    ({"albumentations": "x.json", "augment": "trivial"}, "albumentations augment"),
    ({"albumentations": "x.json", "augment": "none"}, "albumentations augment"),
    ({"transforms": "x.yaml", "augment": "none"}, "transforms augment"),
    ({"albumentations": "x.json", "transforms": "x.yaml", "augment": "light"}, "albumentations transforms"),
    ({"teacher_weight": 0.9}, "teacher_weight teacher"),
    ({"teacher_temperature": 4.0}, "teacher_temperature teacher"),
    ({"feature_weight": 0.2}, "feature_weight teacher"),
    ({"feature_weight": 0.6, "teacher": "runs/x"}, "feature_weight teacher_weight"),
    ({"feature_weight": 0.2, "teacher": "runs/x", "trainable_stages": 0}, "feature_weight trainable_stages"),
    ({"time_budget": "5m", "sizes": "64,96"}, "time_budget sizes"),
    ({"time_budget": "5m", "processes": 2}, "time_budget processes"),
    ({"unlabelled": "x", "trainable_stages": 1}, "unlabelled trainable_stages"),
    ({"unlabelled": "x", "trainable_stages": 0, "head_solver": "minibatch"}, "unlabelled head_solver"),
    ({"unlabelled": "x", "trainable_stages": 0, "feature_cache": "never"}, "unlabelled feature_cache"),
    ({"unlabelled": "x", "trainable_stages": 0, "cv": 3}, "unlabelled cv"),
    ({"cv": 3, "split": "8:1:1"}, "cv split"),
    ({"cv": 3, "time_budget": "5m"}, "cv time_budget"),
    ({"cv": 3, "teacher": "runs/x"}, "cv teacher"),
    ({"cv": 3, "schedule": "plateau"}, "cv schedule"),
    ({"min_chunk": 9, "batch_size": 2, "accumulate": 4}, "min_chunk batch_size accumulate"),
]


@pytest.mark.parametrize(("given", "names"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], names: str) -> None:
    with pytest.raises(SettingsError) as refused:
        TrainSettings.resolve({"data": "x", **given})
    assert set(names.split()) <= set(re.findall(r"\w+", refused.value.arrived))


def test_every_contradiction_is_tried_above() -> None:
    for rule in TrainSettings.contradictions.values():
        settings = inspect.signature(rule).parameters.keys()
        assert any(set(names.split()) <= settings for _, names in CONTRADICTIONS), settings


def test_what_fits_together_is_no_contradiction() -> None:
    settings = TrainSettings.resolve(
        {
            "data": "x", "sizes": "64,96", "image_size": 96, "epochs": 2, "unfreeze_every": 1, "schedule": "plateau",
            "plateau_factor": 0.5, "sync_batch_norm": True, "batch_norm": "train", "sampling": "balanced",
            "albumentations": "x.json", "augment": "light", "teacher": "runs/x", "teacher_weight": 0.9, "min_chunk": 8,
            "batch_size": 4, "accumulate": 2, "feature_weight": 0.1,
        }
    )  # fmt: skip
    assert (settings.model_size, settings.step_images) == (96, 8)


def test_contradictions_come_with_all_other_mistakes_but_not_because_of_them() -> None:
    with pytest.raises(SettingsError) as caught:
        TrainSettings.resolve(
            {"lr": -1, "preset": "bset", "teacher": 3, "teacher_weight": 0.9, "sync_batch_norm": True}
        )
    text = str(caught.value)
    for part in ("data is missing", "lr = -1", "preset = 'bset'", "teacher = 3", "sync_batch_norm needs"):
        assert part in text
    assert "need a teacher" not in text


@pytest.mark.parametrize(
    ("written", "sizes"), [(" 64, 96", (64, 96)), ([64, 96], (64, 96)), (96, (96,)), ("96", (96,)), ([], None)]
)
def test_sizes_are_read_in_every_spelling(written: object, sizes: object) -> None:
    assert TrainSettings.resolve({"data": "x", "sizes": written}).sizes == sizes


def test_the_model_s_size_is_the_last_one() -> None:
    assert TrainSettings.resolve({"data": "x", "sizes": "64,96"}).model_size == 96
    assert TrainSettings.resolve({"data": "x", "image_size": 64}).model_size == 64
    assert TrainSettings.resolve({"data": "x"}).model_size is None


@pytest.mark.parametrize("written", ["", "64,", "64;96", "8,64", "a"])
def test_sizes_that_are_none_are_refused(written: object) -> None:
    with pytest.raises(SettingsError, match="sizes"):
        TrainSettings.resolve({"data": "x", "sizes": written})


@pytest.mark.parametrize("written", ["8:1:1", "8,1,1", (8, 1, 1)])
def test_ratios_are_read_in_every_spelling(written: object) -> None:
    assert SplitSettings.resolve({"folder": "x", "ratio": written}).ratio == (8, 1, 1)


@pytest.mark.parametrize(
    ("written", "should"),
    [("8:1", "three numbers"), ("5:3:2:1", "three numbers"), ("a:b:c", "a valid number"), ("5:-3:2", "greater than")],
)
def test_a_ratio_that_is_none_is_refused(written: str, should: str) -> None:
    with pytest.raises(SettingsError, match=rf"ratio = \S+ .*{should}"):
        SplitSettings.resolve({"folder": "x", "ratio": written})


def test_a_ratio_in_a_file_is_no_time_of_day(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("split: 5:3:2\nlr: 3e-3\nepochs: 0o17\nseed: 1_000\n")
    read = read_yaml(tmp_path / "recipe.yaml")
    assert TrainSettings.resolve({"data": "photos"}, read).split == (5, 3, 2)
    assert TrainSettings.resolve({"data": "photos"}, read).lr == 0.003


@pytest.mark.parametrize("content", ["- a\n- b\n", "train: [1", "\x00"])
def test_a_settings_file_that_is_none_is_refused(content: str) -> None:
    Path("lensmith.yaml").write_text(content)
    with pytest.raises(SettingsError, match=r"lensmith\.yaml"):
        TrainSettings.resolve({"data": "x"})


def test_settings_are_frozen_and_a_seed_is_one_that_generators_take() -> None:
    settings = TrainSettings.resolve({"data": "x", "seed": 2**63 - 1})
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3
    with pytest.raises(SettingsError, match="seed"):
        TrainSettings.resolve({"data": "x", "seed": 2**63})


EMPTY = [
    (ServeSettings, {"bundle": "b", "keep": ""}), (ServeSettings, {"bundle": "b", "jwks": " "}),
    (ServeSettings, {"bundle": "b", "host": ""}), (ServeSettings, {"bundle": "b", "jwt_issuer": "\t"}),
    (ServeSettings, {"bundle": ""}), (TrainSettings, {"data": "x", "out": ""}),
    (TrainSettings, {"data": "x", "lr": ""}), (DeploySettings, {"kind": "nginx", "replica": ["127.0.0.1:1", ""]}),
    (TokenSettings, {"subject": "a", "scopes": "predict,"}),
    (ExportSettings, {"run": "r", "formats": "pt2,,edge"}), (TrackingSettings, {"uri": ""}),
    (ServeSettings, {"bundle": "b", "jwks": "\ufeff"}), (ServeSettings, {"bundle": "b", "keep": "\u200b "}),
]  # fmt: skip


# A variable holds no list.
EMPTY_BY_SOURCE = [
    (cls, given, source)
    for cls, given in EMPTY
    for source in ("keyword", "environment", "file")
    if source != "environment" or not isinstance([*given.values()][-1], list)
]


@pytest.mark.parametrize(("cls", "given", "source"), EMPTY_BY_SOURCE)
def test_an_empty_value_is_a_mistake_wherever_it_comes_from(
    cls: type[Settings], given: dict[str, Any], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    *others, (name, value) = given.items()
    if source == "keyword":
        others.append((name, value))
    elif source == "file":
        Path("lensmith.yaml").write_text(json.dumps({cls.verb: {name: value}}))
    else:
        monkeypatch.setenv(f"LENSMITH_{cls.verb}_{name}".upper(), value)
    with pytest.raises(SettingsError, match=name):
        cls.resolve(dict(others))


def test_every_text_and_path_of_every_verb_refuses_to_be_empty() -> None:
    for cls in Settings.__subclasses__():
        for name in cls.model_fields:
            with pytest.raises(SettingsError, match=rf"{name}\b"):
                cls.resolve({name: " "})


@pytest.mark.parametrize("line", ["jwks:", "keep: # none", "port:", "log_file: ''"])
def test_a_setting_without_a_value_in_the_file_is_a_mistake_and_a_section_without_settings_is_none(line: str) -> None:
    Path("lensmith.yaml").write_text("serve:\n  # port: 80\ntrain:\n")
    assert ServeSettings.resolve({"bundle": "b"}).port == 8000
    Path("lensmith.yaml").write_text("serve:\n  jwks: null\n  keep: ~\n")
    assert ServeSettings.resolve({"bundle": "b"}).jwks is None
    Path("lensmith.yaml").write_text(f"serve:\n  {line}\n")
    with pytest.raises(SettingsError, match=rf"{line.partition(':')[0]} is empty"):
        ServeSettings.resolve({"bundle": "b"})


LINKS = {
    "LENSMITH_SERVE_PORT": "tcp://10.0.0.1:8000", "LENSMITH_SERVE_SERVICE_HOST": "10.0.0.1",
    "LENSMITH_SERVE_SERVICE_PORT": "8000", "LENSMITH_SERVE_SERVICE_PORT_HTTP": "8000",
    "LENSMITH_SERVE_PORT_8000_TCP": "tcp://10.0.0.1:8000", "LENSMITH_SERVE_PORT_8000_TCP_PROTO": "tcp",
    "LENSMITH_SERVE_PORT_8000_TCP_PORT": "8000", "LENSMITH_SERVE_PORT_8000_TCP_ADDR": "10.0.0.1",
    "LENSMITH_SERVE_HEALTH_PORT": "udp://[fd00::1]:53", "LENSMITH_PORT": "tcp://10.0.0.2:80",
    "LENSMITH_SERVICE_HOST": "10.0.0.2", "LENSMITH_TRACK_PORT": "tcp://10.0.0.1:5000",
    "LENSMITH_SERVE_NAME": "/web/serve", "LENSMITH_SERVE_ENV_PATH": "/usr/bin",
}  # fmt: skip


def test_what_kubernetes_sets_for_a_service_of_that_name_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    settings = ServeSettings.resolve({"bundle": "b"})
    assert (settings.port, settings.health_port) == (8000, None)
    monkeypatch.setenv("LENSMITH_SERVE_PORT", "8001")
    assert ServeSettings.resolve({"bundle": "b"}).port == 8001


def test_blanks_and_line_ends_around_a_variable_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_SERVE_JWT_ISSUER", " us\r\n")
    monkeypatch.setenv("LENSMITH_SERVE_KEEP", "uploads\n")
    settings = ServeSettings.resolve({"bundle": "b"})
    assert (settings.jwt_issuer, settings.keep) == ("us", Path("uploads"))


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("LENSMITH_SERVE_DEADLINE", "LENSMITH_SERVE_DEADLINE_MS"),
        ("LENSMITH_SERVE_WHATEVER", ""),
        ("LENSMITH_SERV_PORT", "LENSMITH_SERVE_PORT"),
        ("LENSMITH_JWT_SECERT", "LENSMITH_JWT_SECRET"),
        ("LENSMITH_REDIS_PASSWORD_FIEL", "LENSMITH_REDIS_PASSWORD_FILE"),
        ("LENSMITH_PORT", "LENSMITH_SERVE_PORT"),
        ("LENSMITH_BUNDLE", "LENSMITH_SERVE_BUNDLE"),
        ("lensmith_serve_port", "LENSMITH_SERVE_PORT"),
        ("Lensmith_Jwt_Secret", "LENSMITH_JWT_SECRET"),
        ("LENSMITH_SERVE_NAME", ""),
        ("LENSMITH_SERVE_MODEL_NAME", ""),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest(
    variable: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=f"{variable} is no setting.*{near}"):
        ServeSettings.resolve({"bundle": "b"})


@pytest.mark.parametrize("value", ['"/srv/uploads"', "'/srv/uploads'", ' "/srv/uploads"\n'])
def test_a_variable_in_quotation_marks_is_a_mistake(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An env file of Docker leaves them there: uploads would go into a folder of such a name in the current one."""
    monkeypatch.setenv("LENSMITH_SERVE_KEEP", value)
    with pytest.raises(SettingsError, match="LENSMITH_SERVE_KEEP is in quotation marks"):
        ServeSettings.resolve({"bundle": "b"})


def test_a_tilde_that_no_shell_has_read_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LENSMITH_SERVE_KEEP", "~/uploads")
    Path("lensmith.yaml").write_text("serve:\n  log_file: ~/serve.log\n  jwt_issuer: ~us\n")
    settings = ServeSettings.resolve({"bundle": "b"})
    assert (settings.keep, settings.log_file) == (Path("/home/ada/uploads"), Path("/home/ada/serve.log"))
    assert settings.jwt_issuer == "~us"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serve: {port: 1}\nserve: {host: x}\n", "'serve' twice"), ("serve:\n  port: 1\n  port: 2\n", "'port' twice"),
        ("serve: false\n", "False is there"), ("serve: []\n", "is there"), ("serve:\n  port: yes\n", "port = True"),
        ("serve:\n  workers: on\n", "workers = True"), ("serve:\n  PORT: 1\n", "PORT is no setting of serve, port is"),
    ],
)  # fmt: skip
def test_what_the_settings_file_says_twice_or_in_another_kind_is_a_mistake(text: str, expected: str) -> None:
    Path("lensmith.yaml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(expected)):
        ServeSettings.resolve({"bundle": "b"})


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [(TokenSettings, {"subject": "a b"}, "text of the form ^"), (ServeSettings, {"bundle": 5}, "should be a path")],
)
def test_what_was_expected_is_said_without_names_of_classes(
    settings: type[Settings], given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(expected)):
        settings.resolve(given)


def test_a_choice_of_on_and_off_may_be_yamls_own_words() -> None:
    for written in ("on", "off", "auto", "'off'"):
        Path("lensmith.yaml").write_text(f"serve:\n  batching: {written}\n")
        assert ServeSettings.resolve({"bundle": "b"}).batching == written.strip("'")


def test_a_settings_file_that_would_not_be_read_is_a_mistake() -> None:
    Path("lensmith.yml").write_text("serve: {port: 1}\n")
    with pytest.raises(SettingsError, match=r"Rename it to lensmith\.yaml"):
        ServeSettings.resolve({"bundle": "b"})
    Path("lensmith.yaml").symlink_to("nothing")
    with pytest.raises(SettingsError, match=r"lensmith\.yaml"):
        ServeSettings.resolve({"bundle": "b"})


@pytest.mark.parametrize(("given", "host"), [("[::1]", "::1"), ("[fe80::1%eth0]", "fe80::1%eth0"), ("[x]", "[x]")])
def test_an_ipv6_address_may_have_the_brackets_of_a_url(given: str, host: str) -> None:
    assert ServeSettings.resolve({"bundle": "b", "host": given}).host == host


def test_health_checks_on_the_same_port_are_a_contradiction() -> None:
    with pytest.raises(SettingsError, match="port and health_port are the same"):
        ServeSettings.resolve({"bundle": "b", "port": 8001, "health_port": 8001})
    assert ServeSettings.resolve({"bundle": "b", "port": 0, "health_port": 0}).health_port == 0


@pytest.mark.parametrize("variable", ["LENSMITH_HOME", "LENSMITH_TRAIN_WHATEVER", "LENSMITH_CACHE", "LENSMITH_TOKEN"])
def test_variables_of_others_stop_nothing(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    ServeSettings.resolve({"bundle": "b"})


@pytest.mark.parametrize("section", ["sevre", "Serve", "defaults"])
def test_a_section_of_no_verb_is_refused(section: str) -> None:
    Path("lensmith.yaml").write_text(f"{section}: {{port: 1}}\n")
    with pytest.raises(SettingsError, match=section):
        ServeSettings.resolve({"bundle": "b"})


def test_an_empty_path_of_the_settings_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_CONFIG", "")
    with pytest.raises(SettingsError, match="LENSMITH_CONFIG"):
        ServeSettings.resolve({"bundle": "b"})


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("0.5s", 0.5), ("5m", 300), ("1h30m", 5400), ("30d", 2_592_000), (12, 12)]
)
def test_a_duration_is_read_with_its_unit(written: object, seconds: float) -> None:
    assert TrainSettings.resolve({"data": "x", "time_budget": written}).time_budget == seconds


@pytest.mark.parametrize("written", ["30", "1.5", "5 minutes", "m", "-3s", "1s1m", "1h 30m"])
def test_a_number_without_a_unit_is_no_duration(written: str) -> None:
    for cls, name in ((BenchSettings, "duration"), (TokenSettings, "expires"), (TrainSettings, "time_budget")):
        with pytest.raises(SettingsError, match=rf"{name} = .*unit"):
            cls.resolve({name: written})
