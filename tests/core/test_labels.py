"""One rule for class names: what is normalized, what is refused as looking alike, and what stays as it is."""

import pytest

from lensmith.core.labels import canonical_label, code_points, matched_label, require_distinct
from lensmith.errors import DataError


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("cat", "cat"),
        (" cat\t", "cat"),
        ("cafe\u0301", "caf\u00e9"),
        ("dog\u200b", "dog"),
        ("\ufeffdog", "dog"),
        ("\u202edog\u202c", "dog"),
        ("do\u00adg", "dog"),
        ("do\u200dg", "dog"),
        ("do\u2060g", "dog"),
        ("dog\ufe0f", "dog"),
        ("a\u00a0b", "a b"),
        ("a\u3000 b", "a b"),
        ("a\r\nb", "a b"),
        ("a\x00b", "ab"),
        ("x\u3164", "x"),
        ("\u200b \u00a0", ""),
        ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),  # Persian is spelled with it
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),  # a family, joined from two
        ("\u2764\ufe0f", "\u2764\ufe0f"),
        ("\u00df\u4e2d\u6587=+-'\"", "\u00df\u4e2d\u6587=+-'\""),
    ],
)
def test_what_nobody_sees_is_normalized_and_doing_so_twice_changes_nothing(typed: str, label: str) -> None:
    assert canonical_label(typed) == label
    assert canonical_label(label) == label


@pytest.mark.parametrize(
    ("one", "other", "point"),
    [
        ("Cat", "cat", "U+0043"),
        ("\uff43at", "cat", "U+FF43 FULLWIDTH LATIN SMALL LETTER C"),
        ("c\u0430t", "cat", "U+0430 CYRILLIC SMALL LETTER A"),
        ("\u041c\u041e\u0421\u0422", "MOCT", "U+041C CYRILLIC CAPITAL LETTER EM"),
        ("semi\u2013auto", "semi-auto", "U+2013 EN DASH"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e", "U+200C ZERO WIDTH NON-JOINER"),
        ("\u0430", "a", "U+0430"),
        ("1.0", "1", "U+002E"),
        ("007", "7", "U+0030"),
    ],
)
def test_names_that_look_alike_are_refused_with_their_code_points(one: str, other: str, point: str) -> None:
    with pytest.raises(DataError) as refused:
        require_distinct([one, other, "bird"], "photos")
    assert point in refused.value.arrived
    assert "bird" not in refused.value.arrived


def test_letters_and_words_that_differ_are_classes_of_their_own() -> None:
    require_distinct(["A", "a", "Ma\u00dfe", "Masse", "cat", "cats", "caf\u00e9", "cafe", "golden retriever"], "photos")
    require_distinct(["1", "10", "1.1", "1.10", "0", "v1.0", "2.5"], "photos")


def test_a_name_is_matched_with_a_known_label_however_it_is_typed() -> None:
    assert matched_label(" cafe\u0301", ["dog", "caf\u00e9"]) == "caf\u00e9"
    assert matched_label("cat", ["cat ", "dog"]) == "cat "  # of a bundle made before labels were normalized
    assert matched_label("Dog", ["dog"]) is None
    assert matched_label("\u200b", ["\u200b"]) == "\u200b"


def test_code_points_name_what_cannot_be_seen() -> None:
    assert code_points("a\u200b") == "U+0061 U+200B ZERO WIDTH SPACE"
