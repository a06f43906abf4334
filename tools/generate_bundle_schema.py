"""Write docs/bundle.schema.json and the tables in docs/bundle.md from the manifest's classes; a test says when stale.

python tools/generate_bundle_schema.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lensmith.bundle.format import SCHEMA_VERSION, Manifest
from lensmith.imaging.preprocessing import Preprocessing

DOCS = Path(__file__).parents[1] / "docs"
MARKS = ("<!-- fields: made by tools/generate_bundle_schema.py -->", "<!-- end of fields -->")
SECTIONS = {"Manifest": "", "Preprocessing": "`preprocessing`", "EngineRecord": "Each of `engines`"}
SECTIONS |= {"Abstention": "`abstention`", "Reference": "`reference`"}


def schema() -> dict[str, Any]:
    """The JSON schema of bundle.json. Unknown fields are allowed everywhere: later versions may add some."""
    made = Manifest.model_json_schema()
    # Code that makes a manifest may leave these to their defaults; whoever reads one must find them.
    made["required"] = ["schema_version", *made["required"], "files"]
    made["properties"]["schema_version"] |= {"const": SCHEMA_VERSION}
    for name in ("schema_version", "files"):
        del made["properties"][name]["default"]
    # A dataclass describes its fields in its docstring, which pydantic takes as one text.
    summary, _, attributes = (Preprocessing.__doc__ or "").partition("Attributes:")
    preprocessing = made["$defs"]["Preprocessing"]
    preprocessing["description"] = summary.strip()
    for name, text in re.findall(r"^ {8}(\w+): (.*)$", attributes, re.MULTILINE):
        preprocessing["properties"][name]["description"] = text
    _drop_titles(made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"bundle.json of a lensmith bundle, schema {SCHEMA_VERSION}",
        **made,
    }


def page(text: str) -> str:
    """The text of docs/bundle.md with new tables between its marks."""
    made = schema()
    parts = {"Manifest": made, **made["$defs"]}
    tables = "\n".join(_table(heading, parts[name]) for name, heading in SECTIONS.items())
    before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
    return f"{before}{MARKS[0]}\n{tables}\n{MARKS[1]}{after}"


def _drop_titles(part: Any) -> None:
    """Remove the titles of fields, which repeat their names."""
    if isinstance(part, dict):
        for field in part.get("properties", {}).values():
            field.pop("title", None)
        for value in part.values():
            _drop_titles(value)


def _table(heading: str, part: dict[str, Any]) -> str:
    lines = [f"\n### {heading}", ""] if heading else [""]
    lines += ["| field | type | what it is |", "| --- | --- | --- |"]
    for name, field in part["properties"].items():
        kind = _kind(field) + ("" if name in part["required"] else ", may be missing")
        lines.append(f"| `{name}` | {kind} | {field.get('description', '')} |")
    return "\n".join(lines)


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{choice}`" for choice in field["enum"])
    if "$ref" in field:
        return "object"
    if field["type"] == "array":
        items = field.get("items") or field["prefixItems"][0]
        return f"array of {_kind(items)}s"
    return str(field["type"])


if __name__ == "__main__":
    (DOCS / "bundle.schema.json").write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
    file = DOCS / "bundle.md"
    file.write_text(page(file.read_text()))
