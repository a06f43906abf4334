"""A change of model among processes, by the messages they get."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lensmith.errors import BundleError, ServiceError
from lensmith.serve.listen.change import Changes, Member
from lensmith.serve.listen.member import Message

OLD, NEW = Path("old"), Path("new")


@dataclass
class Link:
    """The end of a pipe that keeps what is sent."""

    sent: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        self.sent.append(message)


def member(bundle: Path = OLD, ready: bool = True) -> Member:
    return Member(cast(Any, None), cast(Any, Link()), bundle, ready=ready)


def heard(of: Member) -> list[tuple[str, Any]]:
    """What it has been told since last asked."""
    link = cast(Link, of.link)
    sent, link.sent = link.sent, []
    return [(message.kind, message.value) for message in sent]


def test_all_take_it_once_all_have_it_ready_and_whoever_asked_is_told_when_all_answer_with_it() -> None:
    changes, one, two, starting = Changes(OLD), member(), member(), member(ready=False)
    changes.begin(NEW, one, [one, two, starting])
    assert [heard(each) for each in (one, two, starting)] == [[("prepare", NEW)], [("prepare", NEW)], []]
    changes.prepared(one, None)
    assert heard(one) == []
    changes.prepared(two, None)
    assert heard(one) == heard(two) == [("activate", None)]
    changes.activated(one)
    assert heard(one) == []
    changes.activated(two)
    assert heard(one) == [("swapped", None)]
    assert changes.bundle == NEW
    changes.joined(starting)  # it began with what the others have left
    assert heard(starting) == [("prepare", NEW)]
    changes.prepared(starting, None)
    assert heard(starting) == [("activate", None)]
    assert starting.bundle == NEW


def test_none_takes_it_where_one_cannot() -> None:
    changes, one, two = Changes(OLD), member(), member()
    changes.begin(NEW, two, [one, two])
    error = BundleError("a", "b", "c")
    changes.prepared(one, error)
    changes.prepared(two, None)
    assert heard(one) == [("prepare", NEW)]
    assert heard(two) == [("prepare", NEW), ("swapped", error)]
    assert changes.bundle == OLD


def test_a_second_change_has_to_wait_for_the_first() -> None:
    changes, one, two = Changes(OLD), member(), member()
    changes.begin(NEW, one, [one, two])
    changes.begin(NEW, two, [one, two])
    assert isinstance(heard(two)[-1][1], ServiceError)
    changes.prepared(one, None)
    changes.prepared(two, None)
    changes.activated(one)
    changes.activated(two)
    changes.begin(OLD, None, [one, two])
    assert heard(one)[-1] == ("prepare", OLD)


def test_a_process_that_dies_is_not_waited_for() -> None:
    for die_first in (True, False):
        changes, asking, dying = Changes(OLD), member(), member()
        changes.begin(NEW, asking, [asking, dying])
        if die_first:
            changes.prepared(asking, None)
            changes.lost(dying)
            changes.activated(asking)
        else:
            changes.prepared(asking, None)
            changes.prepared(dying, None)
            changes.activated(asking)
            changes.lost(dying)
        assert heard(asking)[-1] == ("swapped", None)


def test_the_death_of_the_only_process_ends_the_change() -> None:
    changes, dying, next_one = Changes(OLD), member(), member()
    changes.begin(NEW, None, [dying])
    changes.lost(dying)
    changes.begin(OLD, None, [next_one])
    assert heard(next_one) == [("prepare", OLD)]
