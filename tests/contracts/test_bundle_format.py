"""The bundle's format is as docs/bundle.md and docs/bundle.schema.json say, and stays readable."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from lensmith.bundle import archive
from lensmith.bundle.format import MANIFEST, SCHEMA_VERSION, Bundle, Manifest
from lensmith.errors import BundleError

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "bundle.md").read_text()
SCHEMA = json.loads((DOCS / "bundle.schema.json").read_text())


def read(bundle: Path) -> Any:
    return json.loads((bundle / MANIFEST).read_text())


def with_unknown_fields(content: Any) -> Any:
    """The same JSON with a field more in every object that the schema describes by its fields."""
    content = {**content, "invented_later": {"a": [1]}}
    content["preprocessing"] = {**content["preprocessing"], "invented_later": 1}
    content["engines"] = [{**engine, "invented_later": "x"} for engine in content["engines"]]
    if content["abstention"]:
        content["abstention"] = {**content["abstention"], "invented_later": None}
    return content


def test_the_schema_and_the_tables_are_the_ones_that_the_code_makes() -> None:
    tool = runpy.run_path(str(DOCS.parent / "tools/generate_bundle_schema.py"))
    assert tool["schema"]() == SCHEMA, "run: python tools/generate_bundle_schema.py"
    assert tool["page"](PAGE) == PAGE, "run: python tools/generate_bundle_schema.py"


def test_every_field_is_described() -> None:
    parts = {"Manifest": SCHEMA, **SCHEMA["$defs"]}
    bare = [
        f"{name}.{field}"
        for name, part in parts.items()
        for field, said in part["properties"].items()
        if not said.get("description")
    ]
    assert not bare


@pytest.mark.parametrize("name", ["colour_bundle", "unsure_bundle"])
def test_a_bundle_validates_with_and_without_fields_that_came_later(name: str, request: pytest.FixtureRequest) -> None:
    content = read(request.getfixturevalue(name).path)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(content, SCHEMA)
    jsonschema.validate(with_unknown_fields(content), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": SCHEMA_VERSION + 1},
        {"schema_version": None},
        {"labels": ["one"]},
        {"engines": []},
        {"engines": [{"engine": "onnxruntime"}]},
        {"preprocessing": {"image_size": 32, "resize": "seam-carving"}},
        {"temperature": 0},
        {"files": None},
    ],
)
def test_what_the_schema_refuses_loading_refuses_too(colour_bundle: Bundle, tmp_path: Path, change: Any) -> None:
    content = {**read(colour_bundle.path), **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)
    copy = Path(shutil.copytree(colour_bundle.path, tmp_path / "copy"))
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError):
        Bundle.load(copy)


def test_a_bundle_with_fields_that_came_later_loads_as_the_same(unsure_bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(unsure_bundle.path, tmp_path / "copy"))
    (copy / MANIFEST).write_text(json.dumps(with_unknown_fields(read(copy))))
    (copy / "invented-later.txt").write_text("a file that no hash covers is not used")
    assert Bundle.load(copy).manifest == unsure_bundle.manifest


def test_a_bundle_that_lacks_what_came_later_has_the_defaults(colour_bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(colour_bundle.path, tmp_path / "copy"))
    content = {name: value for name, value in read(copy).items() if name in SCHEMA["required"]}
    content["engines"] = [{"engine": "onnxruntime", "precision": "fp32", "graph": "model.onnx"}]
    jsonschema.validate(content, SCHEMA)
    (copy / MANIFEST).write_text(json.dumps(content))
    manifest = Bundle.load(copy).manifest
    assert (manifest.temperature, manifest.abstention, manifest.engines[0].golden_tolerance) == (1.0, None, 1e-3)


def test_the_program_of_the_page_answers_as_lensmith_does(colour_bundle: Bundle, tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "lensmith" not in program
    golden = colour_bundle.golden()
    for number, image in enumerate(golden.images):
        (tmp_path / "picture.png").write_bytes(image)
        command = [sys.executable, "-c", program, str(colour_bundle.path), str(tmp_path / "picture.png")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rsplit(maxsplit=1)
        expected = golden.probabilities[number]
        assert said[0] == colour_bundle.labels[expected.argmax()]
        np.testing.assert_allclose(float(said[1]), expected.max(), atol=1e-4)


def test_the_page_has_the_limits_of_the_code() -> None:
    assert f"| {archive.MAX_ENTRIES:,} entries |" in PAGE
    assert f"| {archive.MAX_BYTES >> 30} GiB unpacked |" in PAGE
    ratio = (
        f"{archive.MAX_RATIO} times the zip's size, of what unpacks to more than {archive.RATIO_FROM_BYTES >> 20} MiB"
    )
    assert f"| {ratio} |" in PAGE
    assert f"longer\n  than {archive.MAX_NAME_BYTES} bytes" in PAGE
    assert f"`schema_version` is a whole number, now {SCHEMA_VERSION}." in PAGE
    assert [name for name in Manifest.model_fields if f"| `{name}` |" not in PAGE] == []
