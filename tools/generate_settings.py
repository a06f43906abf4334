"""Write docs/settings.md from the settings classes; a test says when it is stale.

python tools/generate_settings.py
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_origin

from lensmith import config

FILE = Path(__file__).parents[1] / "docs/settings.md"
HEAD = """# Settings

Every verb's settings, generated from `lensmith/config/`. A setting is said, first match wins:

1. as a flag (`--batch-size 64`) or keyword (`lensmith.train(..., batch_size=64)`),
2. as an environment variable, `LENSMITH_<VERB>_<NAME>` (`LENSMITH_TRAIN_BATCH_SIZE=64`),
3. for `train`: in the recipe file (`--recipe FILE`, YAML), and under it in the preset,
4. in `lensmith.yaml` in the current directory (or the file in `LENSMITH_CONFIG`), in a section per verb,
5. or it has its default.

All that is wrong is reported together, before anything is loaded. `lensmith distill` has the settings of `train`, where
`model` is said as `--student`; what it takes from the teacher's run stands between the recipe file and the preset.
"""


def page() -> str:
    """The whole page as Markdown."""
    classes = [c for c in vars(config).values() if isinstance(c, type) and issubclass(c, config.Settings)]
    named = {c.verb: c for c in classes if c is not config.Settings}
    sections = [_section(named[verb]) for verb in sorted(named)]
    return "\n".join([HEAD, *sections])


def _section(cls: type[config.Settings]) -> str:
    lines = [f"## {cls.verb}", "", "| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        choices = _choices(field.annotation)
        lines.append(f"| `{name}` | {default} | {field.description}{choices} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "`" + ":".join(f"{part:g}" for part in value) + "`"
    return "" if value is None else f"`{value}`"


def _choices(annotation: object) -> str:
    for part in (annotation, *get_args(annotation)):
        if str(get_origin(part)) == "typing.Literal":
            return " One of " + ", ".join(f"`{choice}`" for choice in get_args(part)) + "."
    return ""


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
