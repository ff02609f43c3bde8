"""What is still to be done after a bot's end is done when it is due, and no more often than it should be."""

import errno
import os
from types import SimpleNamespace
from typing import Any, Final

import pytest

from swarmcg.errors import CgroupError, SwarmcgError
from swarmcg.flock import WITHIN_S
from swarmcg.supervisor import aftercare
from swarmcg.supervisor.aftercare import Aftercare

MOST: Final = 200.0
"""After so many seconds everything that is tried a bounded number of times has been."""


class Scene:
    """An Aftercare with a clock of its own, a home that can be settled or not, and all that it tells."""

    def __init__(self, *, ours: bool) -> None:
        self.now = 0.0
        self.settleable = False
        self.settled: list[tuple[float, float]] = []
        self.told: list[tuple[str, SwarmcgError | None]] = []
        self.forgotten: list[str] = []
        home: Any = SimpleNamespace(path="/home", ours=ours, settle=self._settle)
        self.care = Aftercare(home, gone=self._gone, forget=self.forgotten.append)

    def _settle(self, within: float) -> bool:
        self.settled.append((round(self.now, 3), within))
        return self.settleable

    def _gone(self, bot: Any, _: Any, trouble: SwarmcgError | None) -> None:
        self.told.append((bot.key, trouble))

    def ended(self, key: str = "one", *outcomes: Exception) -> None:
        """A bot was reported; the removals of its slice come out so, and then well."""
        self.care.remove(bot(key, *outcomes), SimpleNamespace())  # type: ignore[arg-type]

    def pass_(self, seconds: float) -> None:
        """Lets time pass from deadline to deadline, as a supervisor does."""
        end = self.now + seconds
        while (due := self.care.due) is not None and due <= end:
            self.now = due
            self.care.act()
        self.now = end


def bot(key: str, *outcomes: Exception) -> Any:
    left = list(outcomes)

    def remove(within: float) -> None:
        assert within == 0
        if left:
            raise left.pop(0)

    held = SimpleNamespace(path=f"/home/{key}", remove=remove, kill=lambda: None, close=lambda: None)
    return SimpleNamespace(key=key, slice=held, intent=SimpleNamespace(report_file=None))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Scene:
    made = Scene(ours=getattr(request, "param", True))
    monkeypatch.setattr(aftercare, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_a_home_is_settled_once_for_ends_in_a_row(scene: Scene) -> None:
    scene.settleable = True
    scene.ended("one")
    scene.ended("two")
    assert (scene.settled, scene.forgotten) == ([], [])
    scene.pass_(MOST)
    assert (scene.settled, scene.forgotten) == ([(0.1, 0)], ["one", "two"])
    assert scene.care.due is None


@pytest.mark.parametrize(("scene", "first"), [(True, 0.1), (False, 0.0)], indirect=["scene"])
def test_a_home_that_cannot_be_settled_is_tried_again_with_growing_pauses_and_never_waited_for(
    scene: Scene, first: float, caplog: pytest.LogCaptureFixture
) -> None:
    scene.ended()
    scene.pass_(first + 0.75)
    scene.settleable = True
    scene.pass_(MOST)
    assert scene.settled == [(round(first + after, 3), 0) for after in (0, 0.1, 0.3, 0.7, 1.5)]
    assert scene.forgotten == ["one"]
    assert not caplog.messages


def test_a_home_that_never_can_be_is_given_up_and_told_until_the_next_end(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.ended()
    scene.pass_(MOST)
    assert (len(scene.settled), scene.settled[-1]) == (11, (102.4, 0))
    assert scene.care.due is None
    (said,) = caplog.messages
    assert "/home" in said
    scene.ended("two")
    scene.pass_(MOST)
    assert len(scene.settled) == 22


def test_a_slice_that_went_otherwise_settles_the_home_as_well(scene: Scene) -> None:
    scene.care.settle()
    scene.settleable = True
    scene.pass_(MOST)
    assert scene.settled == [(0.0, 0), (0.1, 0)]


def test_a_home_that_was_made_for_a_start_that_was_refused_is_settled_at_the_end(scene: Scene) -> None:
    scene.care.prepared()
    assert scene.care.due is None
    scene.care.close()
    assert len(scene.settled) == 1


def test_closing_waits_for_the_lock_of_a_home_that_is_not_settled_yet(scene: Scene) -> None:
    scene.care.close()
    assert scene.settled == []
    scene.ended()
    scene.care.close()
    assert (scene.settled, scene.forgotten) == ([(0.0, WITHIN_S)], ["one"])


@pytest.mark.parametrize("what", [CgroupError("in use"), OSError(errno.EMFILE, os.strerror(errno.EMFILE))])
def test_a_slice_that_cannot_be_removed_is_tried_again_beside_others(scene: Scene, what: Exception) -> None:
    scene.ended("stubborn", what, what)
    scene.ended("other")
    assert scene.told == [("other", None)]
    scene.pass_(0.2)
    assert scene.told == [("other", None), ("stubborn", None)]


def test_a_slice_that_never_can_be_is_left_and_told_at_once(scene: Scene) -> None:
    scene.ended("stubborn", *[CgroupError("in use")] * 100)
    scene.pass_(99 * 0.05 + 0.01)
    ((key, trouble),) = scene.told
    assert (key, str(trouble)) == ("stubborn", "in use")
    assert scene.forgotten == ["stubborn"]  # whoever is to see to it must not find it held
