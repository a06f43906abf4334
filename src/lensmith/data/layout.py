"""The one reading of an image folder's layout: which folders are parts of a split, and which are classes.

    train/cat/1.jpg    parts that hold class folders, by names that stand for a part
    cat/train/1.jpg    classes that hold parts
    cat/1.jpg          classes; deeper folders only group

Only names decide, and what the folders hold must agree with them. Where both readings make sense, as in
`fold1/cat`, `fold2/cat`, a DataError shows them and names the setting that decides.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lensmith.config.values import Layout
from lensmith.core.labels import canonical_label
from lensmith.core.text import listed
from lensmith.data.part_names import (
    Part,
    differ_in_part_alone,
    is_container,
    is_part_or_unlabelled,
    mentions_part,
    parts_of_names,
    same_words,
)
from lensmith.errors import DataError

Inside = tuple[str, ...]
"""A file's path below the folder in question, as its components."""

_NO_CLASS = "in no class folder"
_BESIDE = "in a folder beside train, val and test"
_UNLABELLED = "unlabelled by the name of its folder"


@dataclass
class Arrangement:
    """Files with their class folders and parts.

    Attributes:
        rows: path, name of the class folder and part of each file.
        aside: path and reason of each file that is left out.
        notes: sentences about how the folders were read.
        warnings: sentences about what is left out or doubtful.
    """

    rows: list[tuple[str, str, Part | None]] = field(default_factory=list)
    aside: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, path: str, inside: Inside, part: Part | None) -> None:
        """Add a file by its path below a part."""
        if len(inside) > 1:
            self.rows.append((path, inside[0], part))
        else:
            self.aside.append((path, _NO_CLASS))


@dataclass(frozen=True)
class _Top:
    """A folder at the top of a set, with the files in it.

    Attributes:
        name: the folder's name.
        files: path from the root, and path below the folder that holds the classes, of each file.
    """

    name: str
    files: tuple[tuple[str, Inside], ...]

    @property
    def left_out(self) -> str:
        """The beginning of a sentence on why its images are left out."""
        return f"Images of {self.name!r} that are left out: {len(self.files):,}"

    @property
    def is_flat(self) -> bool:
        """Whether images lie in it, and no folders of images."""
        return all(len(inside) == 1 for _, inside in self.files)

    @property
    def has_direct(self) -> bool:
        """Whether images lie directly in it."""
        return any(len(inside) == 1 for _, inside in self.files)

    @property
    def is_mostly_direct(self) -> bool:
        """Whether more than a stray preview lies directly in it: over a tenth of its images, and more than one."""
        direct = sum(len(inside) == 1 for _, inside in self.files)
        return direct > max(1, len(self.files) // 10)

    @property
    def children(self) -> frozenset[str]:
        """Names of the folders in it that hold images, as class names that are compared without case."""
        return frozenset(canonical_label(inside[0]).lower() for _, inside in self.files if len(inside) > 1)

    @property
    def parts(self) -> dict[str, Part]:
        """Name → part, for the folders in it that have the name of a part."""
        return parts_of_names({inside[0] for _, inside in self.files if len(inside) > 1})


def arrange(paths: Iterable[str], root: Path, layout: Layout = "auto") -> Arrangement:
    """Give each image file of a folder its class folder and its part.

    Args:
        paths: paths of the image files relative to the root, with / as separator.
        root: the folder, for messages.
        layout: `parts` or `classes` where the user has decided.

    Raises:
        DataError: the folders can be read both ways, and `layout` does not decide.
    """
    split = [(path, tuple(path.split("/"))) for path in paths]
    done = Arrangement(aside=[(path, _NO_CLASS) for path, inside in split if len(inside) == 1])
    tops = _tops(split)
    parts = parts_of_names(top.name for top in tops)
    classes_hold_parts = layout != "classes" and _classes_hold_parts(tops)
    both = classes_hold_parts and parts.keys() >= {top.name for top in tops}
    if both and layout == "auto":  # train/train, train/test, test/train, test/test
        raise _ask(tops, parts, root)
    if classes_hold_parts and not both:
        _read_class_parts(tops, done)
    elif layout == "parts" or (layout == "auto" and _are_parts(tops, parts, lambda: _ask(tops, parts, root))):
        _read_parts(tops, parts, done)
    elif layout == "auto" and len(tops) > 1 and any(len(set(top.parts.values())) > 1 for top in tops):
        raise _ask(tops, parts, root)  # cat/train, cat/test, and dog without parts
    else:
        unlabelled = [top for top in tops if layout == "auto" and top.is_flat and is_part_or_unlabelled(top.name)]
        if unlabelled and len(tops) - len(unlabelled) < 2:
            raise _ask(tops, parts, root)
        _read_classes(tops, {top.name for top in unlabelled}, done)
    return done


def _tops(split: Sequence[tuple[str, Inside]]) -> list[_Top]:
    folders = defaultdict(list)
    for path, inside in split:
        if len(inside) > 1:
            folders[inside[0]].append((path, inside[1:]))
    return [_Top(name, tuple(_looked_through(name, files))) for name, files in sorted(folders.items())]


def _looked_through(name: str, files: list[tuple[str, Inside]]) -> list[tuple[str, Inside]]:
    """Files of a folder below its double (`test/test/`), or below a single folder that only holds other folders."""
    while all(len(inside) > 1 for _, inside in files):
        firsts = {inside[0] for _, inside in files}
        only = firsts.pop()
        holds_folders = all(len(inside) > 2 for _, inside in files) and len({inside[1] for _, inside in files}) > 1
        if firsts or not (same_words(only, name) or holds_folders):
            break
        files = [(path, inside[1:]) for path, inside in files]
    return files


def _classes_hold_parts(tops: Sequence[_Top]) -> bool:
    """Whether every folder holds nothing but folders that are named like parts, and hold the images themselves."""
    if len(tops) < 2:
        return False
    for top in tops:
        names = {inside[0] for _, inside in top.files if len(inside) > 1}
        if top.has_direct or not names or names - parts_of_names(names).keys():
            return False
    inner = [inside[1:] for top in tops for _, inside in top.files]
    return all(len(inside) == 1 for inside in inner)


def _read_class_parts(tops: Sequence[_Top], done: Arrangement) -> None:
    common = parts_of_names({inside[0] for top in tops for _, inside in top.files})
    mapped: dict[str, Part] = {}
    for top in tops:
        parts = top.parts | common  # names such as eval depend on the others; cat_train stands for train within cat
        done.rows += [(path, top.name, parts[inside[0]]) for path, inside in top.files]
        mapped |= {inside[0]: parts[inside[0]] for _, inside in top.files}
    done.notes.append(f"Read as classes that hold parts: {_mapped(mapped)}.")


def _read_classes(tops: Sequence[_Top], unlabelled: set[str], done: Arrangement) -> None:
    for top in tops:
        if top.name in unlabelled:
            done.aside += [(path, _UNLABELLED) for path, _ in top.files]
            done.warnings.append(
                f"{top.left_out}: they are unlabelled by its name. --layout classes makes a class of it."
            )
        else:
            done.rows += [(path, top.name, None) for path, _ in top.files]


def _are_parts(tops: Sequence[_Top], parts: dict[str, Part], ask: Callable[[], DataError]) -> bool:
    """Whether the folders are parts rather than classes; both may have names such as `train`.

    Raises:
        DataError: made by `ask`; both readings make sense.
    """
    known = [top for top in tops if top.name in parts]
    others = [top for top in tops if top.name not in parts]
    deep = [top for top in known if not top.is_flat]
    if not deep:
        certain = not others or any(is_part_or_unlabelled(top.name) for top in tops)
        if known and certain and len(set(parts.values())) > 1:
            raise ask()
        if differ_in_part_alone(top.name for top in tops):  # cats_train, cats_test, dogs_train, dogs_test
            raise ask()
        if _one_holds_the_classes(tops):
            raise ask()
        beside = len(tops) > 1 and any(is_container(top.name) and len(top.children) > 1 for top in others)
        if _hold_the_same(others) or beside:  # images/cat, images/dog, and meta beside them
            raise ask()
        return False
    names_agree = len(set(parts.values())) > 1
    classes = frozenset.union(*(top.children for top in deep))
    training = frozenset.union(frozenset(), *(top.children for top in deep if parts[top.name] == "train"))
    confirmed = len({parts[top.name] for top in deep}) > 1 and any(
        one.children & other.children for one in deep for other in deep if parts[one.name] != parts[other.name]
    )
    strange = [
        top for top in deep
        if parts[top.name] != "train" and training and len(top.children) > 1 and not top.children & training
    ]  # fmt: skip
    flat_training = any(top.is_flat and parts[top.name] == "train" for top in known)
    foreign = [top for top in others if not top.children & classes or not names_agree]
    if strange or flat_training or (foreign and not confirmed):
        raise ask()
    return True


def _one_holds_the_classes(tops: Sequence[_Top]) -> bool:
    """Whether a folder holds what lies beside it (`cells/cat` and `cat`), or folders where a flat one is for tests."""
    names = Counter(canonical_label(top.name).lower() for top in tops)
    testing = any(top.is_flat and mentions_part(top.name) for top in tops)  # which holds no folders itself
    for top in tops:
        children = top.children
        own = canonical_label(top.name).lower() if children else ""
        if any(names[name] > (name == own) for name in children) or (len(children) > 1 and testing):
            return True
    return False


def _hold_the_same(tops: Sequence[_Top]) -> bool:
    """Whether at least half of the folders, and two, hold folders of the same names, and not just one each."""
    deep = [top for top in tops if top.children and not top.is_mostly_direct]
    counts = Counter(child for top in deep for child in top.children)
    shared = {child for child, count in counts.items() if count > 1}

    def is_alike(top: _Top) -> bool:
        common = len(top.children & shared)
        return common >= max(2, len(shared) / 2) or 2 * common >= len(top.children)

    alike = [top for top in deep if is_alike(top)]
    several = len(shared) > 1 or any(len(top.children) > 1 for top in alike)
    return several and len(alike) > 1 and 2 * len(alike) >= len(tops)


def _read_parts(tops: Sequence[_Top], parts: dict[str, Part], done: Arrangement) -> None:
    if not parts:
        for top in tops:
            for path, inside in top.files:
                done.add(path, inside, None)
        done.warnings.append(
            f"None of the folders {listed(repr(top.name) for top in tops)} has the name of a part: their images are "
            "put together, and split like a folder without parts."
        )
        return
    training = {inside[0] for top in tops if parts.get(top.name) == "train" for _, inside in top.files}
    trained = {canonical_label(name).lower() for name in training}
    for top in tops:
        part = parts.get(top.name)
        if part is None:
            done.aside += [(path, _BESIDE) for path, _ in top.files]
            done.warnings.append(f"{top.left_out}: its name stands for none of train, val and test.")
        elif part != "train" and trained and (top.is_flat or (len(top.children) == 1 and not top.children & trained)):
            done.aside += [(path, _NO_CLASS if top.is_flat else "in no folder of a class") for path, _ in top.files]
            done.warnings.append(f"{top.left_out}: it has no folder of a class, so they are unlabelled.")
        else:
            for path, inside in top.files:
                done.add(path, inside, part)
    if any(name.lower() != part for name, part in parts.items()):
        done.notes.append(f"Read as parts: {_mapped(parts)}.")


def _ask(tops: Sequence[_Top], parts: dict[str, Part], root: Path) -> DataError:
    """An error that shows both readings and names the setting that decides."""
    as_parts = [f"{top.name!r} ({parts.get(top.name, 'no part by its name')})" for top in tops]
    classes = sorted({inside[0] for top in tops for _, inside in top.files if len(inside) > 1})
    holding = f"hold the classes {listed(map(repr, classes))}" if classes else "hold images without a class"
    grouping = sorted({name for top in tops for name in top.parts})
    inner = f", in which {listed(map(repr, grouping))} only group images" if grouping else ""
    return DataError(
        f"Folders of classes, or of parts that hold the classes, were expected in {root}.",
        f"Both readings make sense: the parts {listed(as_parts)} {holding}, "
        f"or the classes are {listed(repr(top.name) for top in tops)}{inner}.",
        "Decide with --layout parts or --layout classes (layout in Python and in a pipeline's file).",
    )


def _mapped(parts: dict[str, Part]) -> str:
    return listed((f"{name} is {part}" for name, part in sorted(parts.items())), 10)
