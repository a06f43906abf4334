"""Write docs/settings.md from the settings classes; a test says when it is stale.

python tools/generate_settings.py
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_origin

from lensmith import config

FILE = Path(__file__).parents[1] / "docs/settings.md"
HEAD = """# Settings

The settings of all verbs, generated from `lensmith/config/`. The value of a setting comes from, in this order:

1. the flag (`--batch-size 64`) or keyword (`lensmith.train(..., batch_size=64)`),
2. the environment variable `LENSMITH_<VERB>_<NAME>` (`LENSMITH_TRAIN_BATCH_SIZE=64`),
3. for `train`: the recipe file (`--recipe FILE`, YAML), then the preset,
4. `lensmith.yaml` in the current directory (or the file in `LENSMITH_CONFIG`), in a section per verb,
5. its default.

All mistakes are reported together, before anything is loaded. `lensmith.yaml` has the names of verbs as sections;
another section, an unknown setting, and a variable `LENSMITH_<VERB>_…` that is no setting are mistakes, and so is an
empty value from wherever: unset the variable, or leave the flag out. So are quotation marks around a variable, which
env files of Docker keep, and a key that stands twice. Blanks and line ends around a variable do not count; `~` at the
beginning of a path is the home folder. What Kubernetes sets in each pod for a Service called `lensmith-serve`
(`LENSMITH_SERVE_PORT=tcp://10.0.0.1:8000` and others) is left out. A duration has its unit (`90s`, `5m`, `1h30m`,
`30d`); in Python and YAML a number is in seconds.

`lensmith distill` has the settings of `train`, with `--student` for `model`; values from the teacher's run have
precedence between the recipe file and the preset.
"""


def page() -> str:
    """The whole page as Markdown."""
    classes = [c for c in vars(config).values() if isinstance(c, type) and issubclass(c, config.Settings)]
    named = {c.verb: c for c in classes if c is not config.Settings}
    sections = [_section(named[verb]) for verb in sorted(named)]
    return "\n".join([HEAD, *sections])


def _section(cls: type[config.Settings]) -> str:
    lines = [f"## {cls.verb}", "", "| setting | default | what it is |", "| --- | --- | --- |"]
    old = {new: name for name, new in cls.renamed.items()}
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        choices = _choices(field.annotation)
        before = f" Its old name `{old[name]}` is still read." if name in old else ""
        lines.append(f"| `{name}` | {default} | {field.description}{choices}{before} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        names = [part for part in value if isinstance(part, str)]
        return "`" + (",".join(names) if names else ":".join(f"{part:g}" for part in value)) + "`"
    return "" if value is None else f"`{value}`"


def _choices(annotation: object) -> str:
    for part in (annotation, *get_args(annotation)):
        if str(get_origin(part)) == "typing.Literal":
            return " One of " + ", ".join(f"`{choice}`" for choice in get_args(part)) + "."
    return ""


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
