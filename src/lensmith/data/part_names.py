"""Which part of a split a folder's name stands for: `training_set`, `seg_test`, `Val2017`, `hold-out`.

A name stands for a part if one of its words does, and all others are words that say nothing (set, images, a number) or
that its sibling folders share (`flowers_train`, `flowers_test`). So `train_station` and `steam train` are classes.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

Part = Literal["train", "val", "test"]

_WORDS: dict[Part, str] = {
    "train": "train training trn tr trainval trainset trainingset entrenamiento entrainement entraînement "
    "apprentissage treino addestramento trainingsdaten обучение 训练 训练集 訓練 学習",
    "val": "val valid validation validate validating vali va dev devel development validierung validierungsdaten "
    "validacion validación validação валидация 验证 验证集 検証",
    "test": "test testing tests tst te holdout heldout unseen pred predict prediction predictions submission prueba "
    "teste testdaten тест 测试 测试集 テスト",
}
_PART_OF_WORD: dict[str, Part] = {word: part for part, words in _WORDS.items() for word in words.split()}
_EVALUATION = {"eval", "evaluation", "evaluate", "evaluating"}
"""Words for test images, or for validation images where another folder has the test images."""

_UNLABELLED = frozenset(
    {
        "unlabeled", "unlabelled", "unsup", "unsupervised", "ungelabelt", "nolabel", "nolabels", "withoutlabel",
        "pred", "predict", "prediction", "predictions", "submission", "unseen",
    }
)  # fmt: skip
"""Words for images without labels; some are words for a part, too, where such a folder holds classes."""
_CONTAINERS = frozenset({"images", "image", "imgs", "img", "data", "dataset", "datasets", "photos", "pictures", "pics"})
_SAYS_NOTHING = frozenset(
    {
        "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "pic", "pics", "picture",
        "pictures", "photo", "photos", "folder", "dir", "directory", "file", "files", "sample", "samples", "split",
        "splits", "part", "parts", "subset", "partition", "raw", "seg", "sub", "new", "final", "all", "only", "clean",
        "cleaned", "resized", "crop", "crops", "cropped", "frames", "jpg", "jpeg", "png", "public", "private", "full",
        "mini", "small", "tiny", "large", "big", "the", "of", "for", "my",
    }
)  # fmt: skip
_GLUED = re.compile(
    r"(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|dev|eval(?:uation)?)"
    r"(set|data(?:set)?|images?|imgs?|pics|pictures|photos|split|folder|dir|files|samples)"
)
"""A part and a word that says nothing, written as one."""


def parts_of_names(names: Iterable[str]) -> dict[str, Part]:
    """Name → part, for those of sibling folders' names that stand for a part."""
    words = {name: _words(name) for name in names}
    found: dict[str, tuple[str, set[str]]] = {}
    for name, all_words in words.items():
        meant = {part for word in all_words if (part := _meaning(word))}
        if meant == {"train", "val"}:  # as in train_val: images to learn from
            meant = {"train"}
        if len(meant) == 1:
            others = {word for word in all_words if not _meaning(word)}
            found[name] = (meant.pop(), {word for word in others if len(word) > 1 and word not in _SAYS_NOTHING})
    shared = set.intersection(*(others for _, others in found.values())) if len(found) > 1 else set()
    plain = {name: part for name, (part, others) in found.items() if others <= shared}
    evaluation: Part = "val" if "test" in plain.values() else "test"
    known: dict[str, Part] = {"train": "train", "val": "val", "test": "test", "eval": evaluation}
    parts = {name: known[part] for name, part in plain.items()}
    return parts if not shared or len(set(parts.values())) > 1 else {}


def same_words(one: str, other: str) -> bool:
    """Whether two names differ in case, blanks and punctuation at most."""
    return _words(one) == _words(other) != []


def differ_in_part_alone(names: Iterable[str]) -> bool:
    """Whether two of the names say the same but for the part: `cats_train` and `cats_test`."""
    parts = defaultdict(set)
    for words in map(_words, names):
        others = frozenset(word for word in words if not _meaning(word) and word not in _SAYS_NOTHING)
        parts[others].add(frozenset(filter(None, map(_meaning, words))))
    return any(others and len(found - {frozenset()}) > 1 for others, found in parts.items())


def mentions_part(name: str) -> bool:
    """Whether a name of several words has the word of a part among them: `kaggle_testset`, and not `test`."""
    words = _words(name)
    return len(words) > 1 and any(map(_meaning, words))


def is_part_or_unlabelled(name: str) -> bool:
    """Whether a name that no class is likely to have stands for a part (`test_images`), or for unlabelled images."""
    words = _words(name)
    return not _UNLABELLED.isdisjoint({*words, "".join(words)}) or (len(words) > 1 and name in parts_of_names([name]))


def is_container(name: str) -> bool:
    """Whether a name only says that images are in the folder: `images`, `photos`."""
    return _CONTAINERS.issuperset(_words(name))


def _meaning(word: str) -> str | None:
    return "eval" if word in _EVALUATION else _PART_OF_WORD.get(word)


def _words(name: str) -> list[str]:
    """The words of a name in lower case, without numbers: `TrainSet2` gives train, set."""
    text = re.sub(r"(?i)(hold|held)[\W_]?out", r"\1out", unicodedata.normalize("NFKC", name))
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[^\W\d_A-Z]+", text) or re.findall(r"\w+", text)
    words = [word.lower() for word in found]
    if "".join(words) in _PART_OF_WORD:
        return ["".join(words)]
    glued = [(word, _GLUED.fullmatch(word)) for word in words]
    return [part for word, match in glued for part in (match.groups() if match else (word,))]
