"""Docstrings read alone: no fragments among entries, dtype and shape of every array, one class for one name."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "lensmith"
ALLOWED_SHARE = 0.03
"""The largest share of entries that may look like fragments to a check as simple as this one."""

ENTRY = re.compile(r"^    (\*{0,2}[\w., *`]+?): (.*)$")
FRAGMENT = re.compile(
    r"(of|in|by|for|to|as|from|with|without|that|which|where|when|on|at|under|over|besides?|it|its|they|their|them|is|are"
    r"|was|were|see|than|because|since|until|after|before|how|what|who|whose|if|or|and|said|asked|made|only|not|both|these"
    r"|those|there|has|have|must|may|can|so|else|same|another|again)\b",
    re.IGNORECASE,
)
ARRAY = re.compile(r"NDArray|ndarray|Tensor|ArrayLike|\b_?(Floats|Bools|Ints|Images)\b")
DTYPE = re.compile(r"\b(b?float\d*|u?int\d*|bool|complex\d*|dtype|fp16|bf16|fp32)\b")
SHAPE = re.compile(r"\((?:\d+|[A-Z…]|\.\.\.|…)[\w ×*+,/…-]*,?[^)]*\)|shape|scalar")

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def definitions(file: Path) -> list[tuple[Node, str]]:
    """Every class and function of a file with its docstring, public or not."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return [(node, ast.get_docstring(node) or "") for node in nodes if isinstance(node, Node)]


def entries(docstring: str) -> list[tuple[str, str]]:
    """Name and description of each entry under Args and Attributes."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in docstring.split("\n"):
        if re.fullmatch(r"(Args|Attributes):\s*", line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (match := ENTRY.match(line)):
            found.append((match[1], match[2]))
        elif inside and found and line.startswith("     "):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def is_fragment(description: str) -> bool:
    """Whether a description cannot be read alone, such as `of the run.`"""
    return bool(FRAGMENT.match(description)) or len(re.findall(r"[\w×'-]+", description)) < 2


def fragments(files: list[Path]) -> tuple[list[str], int]:
    """Entries that are fragments, with their places, and the number of all entries."""
    found, count = [], 0
    for file in files:
        for node, docstring in definitions(file):
            for name, description in entries(docstring):
                count += 1
                if is_fragment(description):
                    found.append(f"{file}:{node.lineno}: {node.name}: {name}: {description}")
    return found, count


def silent_on_arrays(files: list[Path]) -> list[str]:
    """Public functions that take or return arrays without saying their dtype and shape."""
    found = []
    for file in files:
        for node, docstring in definitions(file):
            if isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            hints = [node.returns, *(arg.annotation for arg in (*node.args.args, *node.args.kwonlyargs))]
            if any(hint is not None and ARRAY.search(ast.unparse(hint)) for hint in hints):
                lacking = [what for what, says in (("dtype", DTYPE), ("shape", SHAPE)) if not says.search(docstring)]
                if lacking:
                    found.append(f"{file}:{node.lineno}: {node.name} lacks {' and '.join(lacking)}")
    return found


def stale_arguments(files: list[Path]) -> list[str]:
    """Entries under Args that name no argument; ruff's D417 finds arguments without an entry."""
    found = []
    for file in files:
        for node, docstring in definitions(file):
            inside = isinstance(node, ast.ClassDef)
            functions = [n for n in node.body if isinstance(n, ast.FunctionDef)] if inside else [node]
            names = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
            for function in functions:
                if not inside or function.name in ("__init__", "__call__"):
                    names |= {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
            section = re.search(r"^Args:\n(    .*\n?|\n)*", docstring, re.MULTILINE)
            for name, _ in entries(section[0] if section else ""):
                parts = re.split(r", | and ", name.replace("*", "").replace("`", ""))
                if all(part.isidentifier() for part in parts) and not names >= set(parts):
                    found.append(f"{file}:{node.lineno}: {node.name} has no argument {name}")
    return found


def repeated_classes(files: list[Path]) -> list[str]:
    """Names that several classes have."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for node, _ in definitions(file):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{file}:{node.lineno}")
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def test_entries_of_docstrings_read_alone() -> None:
    found, count = fragments(sorted(SOURCE.rglob("*.py")))
    assert len(found) < ALLOWED_SHARE * count, "\n".join(found)


def test_arrays_have_a_dtype_and_a_shape() -> None:
    assert silent_on_arrays(sorted(SOURCE.rglob("*.py"))) == []


def test_described_arguments_exist() -> None:
    assert stale_arguments(sorted(SOURCE.rglob("*.py"))) == []


def test_one_class_has_one_name() -> None:
    assert repeated_classes(sorted(SOURCE.rglob("*.py"))) == []
