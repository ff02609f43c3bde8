"""Who belongs to a tree: parents, sessions, and pids that are used again."""

from typing import Final

import pytest

from swarmcg.elsewhere.tree import Seen, members

MAIN: Final = (10, 100.0)


@pytest.mark.parametrize(
    ("seen", "session", "found"),
    [
        ([], None, set()),
        ([Seen(10, 1, 100.0)], None, {10}),
        (
            [Seen(10, 1, 100.0), Seen(11, 10, 101.0), Seen(12, 11, 102.0), Seen(13, 1, 103.0)],
            None,
            {10, 11, 12},
        ),
        # The main process has ended, and Windows still names it as the parent.
        ([Seen(11, 10, 101.0), Seen(12, 11, 102.0)], None, {11, 12}),
        # Its pid is another's now, whose children are not ours.
        ([Seen(10, 1, 200.0), Seen(11, 10, 201.0)], None, set()),
        # A parent younger than its child has taken the pid of the parent that the child had.
        ([Seen(10, 1, 100.0), Seen(11, 10, 50.0)], None, {10}),
        # Orphans keep their session, and their children follow.
        ([Seen(11, 1, 101.0, 10), Seen(12, 11, 102.0, 12), Seen(13, 1, 103.0, 13)], 10, {11, 12}),
        ([Seen(11, 1, 101.0, None)], 10, set()),
        ([Seen(10, 10, 100.0)], None, {10}),
    ],
)
def test_members(seen: list[Seen], session: int | None, found: set[int]) -> None:
    assert members([MAIN], seen, session) == found


def test_a_long_chain_in_any_order() -> None:
    chain = [Seen(10 + n, 9 + n, 100.0 + n) for n in range(500)]
    assert len(members([MAIN], chain[::-1], None)) == 500


def test_what_was_seen_before_is_a_root_of_its_own() -> None:
    assert members([MAIN, (20, 120.0)], [Seen(20, 1, 120.0), Seen(21, 20, 121.0)], None) == {20, 21}
