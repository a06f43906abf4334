"""What a newcomer looks for is found by the name of a file, or by the first line of a docstring."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lensmith"
LOOKUPS = {
    "early stopping": "training",
    "mixed precision": "training",
    "gradient accumulation": "training",
    "label smoothing": "training",
    "warm-up": "training",
    "EMA": "training",
    "learning rate": "training",
    "out-of-memory": "training",
    "activation checkpointing": "training",
    "checkpoint": "training/run_dir",
    "resume": "training",
    "feature cache": "training",
    "distillation": "training",
    "MixUp": "training/dataloading",
    "augmentation": "training/dataloading",
    "pretrained weights": "training/models",
    "int8 quantization": "exporting",
    "calibration": "exporting",
    "confidence calibration": "evaluation",
    "data leakage": "data",
    "image contract": "imaging",
    "golden samples": "bundle",
    "drift": "bundle",
    "out of distribution": "bundle",
    "canary split": "serving/rollout",
    "sequential test": "rollout",
    "hot reload": "serving",
    "rate limit": "serving/auth",
    "JSON Web Key Set": "serving/auth",
    "circuit breaking": "serving",
    "back-pressure": "serving",
    "admission control": "serving/execution",
    "dynamic batching": "serving/execution",
    "graceful shutdown": "serving/server",
    "active learning": "serving/feedback",
}
"""The words → the room in which they have to be found."""


@lru_cache(maxsize=1)
def first_lines() -> dict[str, str]:
    """Path and first lines of each file, in lower case with spaces in the place of hyphens."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        nodes = [
            tree,
            *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)),
        ]
        lines = [(ast.get_docstring(node) or "").partition("\n")[0] for node in nodes]
        name = str(file.relative_to(SOURCE))
        found[name] = _plain("\n".join([name.replace("_", " "), *lines]))
    return found


def _plain(text: str) -> str:
    return text.lower().replace("-", " ")


@pytest.mark.parametrize(("words", "room"), LOOKUPS.items(), ids=LOOKUPS.keys())
def test_a_feature_is_found_where_it_is(words: str, room: str) -> None:
    pattern = re.compile(rf"\b{re.escape(_plain(words))}")
    files = [name for name, text in first_lines().items() if pattern.search(text)]
    assert any(name.startswith(f"{room}/") for name in files), files
