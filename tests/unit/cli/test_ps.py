"""The one word that `swarmcg ps` has for the state of a bot."""

import pytest

from swarmcg.cli.ps import state


@pytest.mark.parametrize(
    ("owned", "stopping", "frozen", "draining", "word"),
    [
        (True, False, False, False, "running"),
        (True, False, False, True, "draining"),
        (True, False, True, True, "frozen"),
        (True, True, True, True, "stopping"),  # a stop freezes the slice for a moment
        (False, True, True, True, "ownerless"),
        (False, False, False, False, "ownerless"),
        (None, False, False, False, "unknown"),
        (None, False, False, True, "unknown"),
        (None, True, False, False, "stopping"),
        (None, False, True, False, "frozen"),
    ],
)
def test_the_state_that_decides_what_to_do_comes_first(
    *, owned: bool | None, stopping: bool, frozen: bool, draining: bool, word: str
) -> None:
    assert state(owned=owned, stopping=stopping, frozen=frozen, draining=draining) == word
