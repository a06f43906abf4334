"""Labels of a challenger and its champion, as each bundle spells them."""

from lensmith.rollout.lifecycle import spelled_mapping


def test_labels_that_differ_in_what_nobody_sees_are_mapped_and_given_ones_are_spelled_as_in_the_bundles() -> None:
    champion, challenger = ("caf\u00e9", "cat ", "dog"), ("cafe\u0301", "cat", "wolf", "bird")
    mapping = spelled_mapping({" wolf": "dog\u200b", "bird": ""}, champion, challenger)
    assert mapping == {"wolf": "dog", "bird": "", "cafe\u0301": "caf\u00e9", "cat": "cat "}
