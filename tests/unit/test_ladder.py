"""The stop ladder as a state machine: every way down ends, in bounded time, and in order."""

from typing import Final

import pytest
from hypothesis import given, strategies as st

from swarmcg.ladder import FREEZE_S, KILL_S, Act, Ladder, Rung

NOW: Final = 100.0
TIMES: Final = st.floats(0, 1000, allow_nan=False)
GRACE: Final = st.floats(0, 600, allow_nan=False)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("drain"), st.none() | GRACE),
        st.tuples(st.just("terminate"), st.none() | GRACE),
        st.tuples(st.sampled_from(["frozen", "main_ended", "tick"]), st.none()),
        st.tuples(st.just("pass"), TIMES),
    ),
    max_size=30,
)


def up(*, can_kill: bool = True, grace: float = 10.0) -> Ladder:
    return Ladder(grace, can_kill=can_kill)


def do(ladder: Ladder, step: str, now: float, value: float | None) -> tuple[Act, ...]:
    if step in {"drain", "terminate"}:
        return getattr(ladder, step)(now, value)  # type: ignore[no-any-return]
    return getattr(ladder, step)(now)  # type: ignore[no-any-return]


def walk(ladder: Ladder, steps: list[tuple[str, float | None]]) -> tuple[float, list[Act]]:
    now, acts = NOW, list[Act]()
    for step, value in steps:
        if step == "pass":
            now += value or 0
        else:
            acts += do(ladder, step, now, value)
    return now, acts


def stand(ladder: Ladder) -> tuple[Rung, float | None]:
    """Asked anew each time: a type checker takes an attribute for what it was at the last look."""
    return ladder.rung, ladder.due


def grace_over(ladder: Ladder) -> bool:
    return ladder.grace_over


def ticks(ladder: Ladder, most: int) -> list[Act]:
    """What follows when nothing happens but time."""
    acts: list[Act] = []
    for _ in range(most):
        if ladder.due is None:
            break
        acts += ladder.tick(ladder.due)
    return acts


@pytest.mark.parametrize("can_kill", [True, False])
def test_the_whole_way_down_of_a_bot_that_resists(can_kill: bool) -> None:
    ladder = up(can_kill=can_kill)
    assert ladder.drain(NOW, 5) == (Act.THAW, Act.DRAIN)
    assert ladder.due == NOW + 5
    assert ladder.tick(NOW + 5) == (Act.THAW, Act.FREEZE)
    assert ladder.terminated
    assert ladder.frozen(NOW + 5.1) == (Act.TERMINATE,)
    assert ladder.due == NOW + 15
    assert not grace_over(ladder)
    killing = ladder.tick(NOW + 15)
    assert grace_over(ladder)
    if not can_kill:
        assert killing == (Act.FREEZE,)
        killing = ladder.frozen(NOW + 15.1)
    assert killing == ((Act.KILL if can_kill else Act.KILL_EACH),)
    assert ladder.empty() == (Act.FINISH,)
    assert stand(ladder) == (Rung.GONE, None)


def test_nothing_is_due_before_anything_was_asked() -> None:
    ladder = up()
    assert ladder.due is None
    assert ladder.tick(1e9) == ()
    assert ladder.rung is Rung.UP


def test_a_slice_that_does_not_freeze_is_signalled_all_the_same() -> None:
    ladder = up()
    ladder.terminate(NOW)
    assert ladder.due == NOW + FREEZE_S
    assert ladder.tick(NOW + FREEZE_S) == (Act.TERMINATE,)
    other = up(can_kill=False)
    other.main_ended(NOW)
    assert other.tick(NOW + FREEZE_S) == (Act.KILL_EACH,)


def test_a_main_process_that_ends_by_itself_has_its_leftovers_killed_at_once() -> None:
    ladder = up()
    assert ladder.main_ended(NOW) == (Act.KILL,)
    assert not ladder.terminated
    assert not ladder.grace_over


def test_leftovers_keep_the_grace_once_terminate_began() -> None:
    ladder = up()
    ladder.terminate(NOW)
    ladder.frozen(NOW)
    assert ladder.main_ended(NOW + 1) == ()
    assert ladder.due == NOW + 10


def test_a_drained_main_process_has_its_leftovers_killed_at_once() -> None:
    ladder = up()
    ladder.drain(NOW, 1000)
    assert ladder.main_ended(NOW + 1) == (Act.KILL,)


def test_a_smaller_grace_shortens_and_a_larger_one_does_not_lengthen() -> None:
    ladder = up(grace=100)
    ladder.terminate(NOW)
    ladder.frozen(NOW)
    ladder.terminate(NOW + 1, 1000)
    assert ladder.due == NOW + 100
    ladder.terminate(NOW + 1, 2)
    assert ladder.due == NOW + 3
    assert ladder.tick(NOW + 3) == (Act.KILL,)


def test_a_smaller_grace_counts_also_while_it_freezes() -> None:
    ladder = up(grace=100)
    ladder.terminate(NOW)
    ladder.terminate(NOW, 0.5)
    ladder.frozen(NOW + 0.1)
    assert ladder.due == NOW + 0.5


def test_a_larger_grace_does_not_lengthen_while_it_freezes() -> None:
    ladder = up(grace=100)
    ladder.terminate(NOW)
    ladder.terminate(NOW, 1000)
    ladder.frozen(NOW + 0.1)
    assert ladder.due == NOW + 100


def test_a_second_drain_does_not_ask_again_but_may_bring_the_deadline_nearer() -> None:
    ladder = up()
    assert ladder.drain(NOW) == (Act.THAW, Act.DRAIN)
    assert stand(ladder) == (Rung.DRAINING, None)
    for deadline, due in ((50, 50), (80, 50), (5, 5)):
        assert ladder.drain(NOW, deadline) == ()
        assert stand(ladder) == (Rung.DRAINING, NOW + due)


def test_a_drain_after_terminate_changes_nothing() -> None:
    ladder = up()
    ladder.terminate(NOW)
    due = ladder.due
    assert ladder.drain(NOW, 0.001) == ()
    assert stand(ladder) == (Rung.FREEZING, due)


@pytest.mark.parametrize(("can_kill", "again"), [(True, Act.KILL), (False, Act.KILL_EACH)])
def test_processes_that_survive_are_cried_about_and_killed_again_for_ever(can_kill: bool, again: Act) -> None:
    ladder = up(can_kill=can_kill)
    ladder.main_ended(NOW)
    if not can_kill:
        ladder.frozen(NOW)
    assert stand(ladder)[0] is Rung.KILLED
    for _ in range(5):
        now = ladder.due or 0
        assert ladder.tick(now) == (Act.CRY, again)
        assert stand(ladder) == (Rung.STUCK, now + KILL_S)
    assert ladder.empty() == (Act.FINISH,)


def test_frozen_means_nothing_to_a_bot_that_nobody_stops() -> None:
    ladder = up()
    assert ladder.frozen(NOW) == ()
    assert ladder.rung is Rung.UP


@given(STEPS, st.booleans(), GRACE)
def test_every_way_is_killed_within_its_grace_once_terminate_was_asked(
    steps: list[tuple[str, float | None]], can_kill: bool, grace: float
) -> None:
    ladder = up(can_kill=can_kill, grace=grace)
    now, acts = walk(ladder, steps)
    acts += ladder.terminate(now)
    acts += ticks(ladder, 5)
    assert {Act.KILL, Act.KILL_EACH} & set(acts)
    assert (Act.KILL in acts) == can_kill
    assert ladder.empty() == (Act.FINISH,)


@given(STEPS, st.booleans(), GRACE, st.floats(0, 600))
def test_terminate_never_lengthens(
    steps: list[tuple[str, float | None]], can_kill: bool, grace: float, other: float
) -> None:
    ladder = up(can_kill=can_kill, grace=grace)
    now, _ = walk(ladder, steps)
    ladder.terminate(now, other)
    before = ladder.due
    ladder.terminate(now + 1, 601)
    assert ladder.due == before


@given(STEPS, STEPS, st.booleans())
def test_after_the_end_everything_is_harmless(
    steps: list[tuple[str, float | None]], more: list[tuple[str, float | None]], can_kill: bool
) -> None:
    ladder = up(can_kill=can_kill)
    walk(ladder, steps)
    assert ladder.empty() == (Act.FINISH,)
    facts = ladder.terminated, ladder.grace_over
    assert walk(ladder, more)[1] == []
    assert ladder.empty() == ()
    assert (ladder.rung, ladder.due, ladder.terminated, ladder.grace_over) == (Rung.GONE, None, *facts)


@given(STEPS, st.booleans(), GRACE)
def test_whatever_is_frozen_is_followed_by_what_thaws_it(
    steps: list[tuple[str, float | None]], can_kill: bool, grace: float
) -> None:
    """TERMINATE and KILL_EACH end in a thaw, KILL works on frozen processes; else something is still due."""
    ladder = up(can_kill=can_kill, grace=grace)
    _, acts = walk(ladder, steps)
    last = max((n for n, act in enumerate(acts) if act is Act.FREEZE), default=None)
    if last is not None and not {Act.TERMINATE, Act.KILL, Act.KILL_EACH} & set(acts[last:]):
        assert ladder.rung in {Rung.FREEZING, Rung.FREEZING_TO_KILL}
        assert ladder.due is not None


@given(STEPS, st.booleans(), GRACE)
def test_sigterm_comes_once_and_never_after_a_kill(
    steps: list[tuple[str, float | None]], can_kill: bool, grace: float
) -> None:
    ladder = up(can_kill=can_kill, grace=grace)
    _, acts = walk(ladder, steps)
    acts += ticks(ladder, 6)
    assert acts.count(Act.TERMINATE) <= 1
    kills = [n for n, act in enumerate(acts) if act in {Act.KILL, Act.KILL_EACH}]
    assert not kills or Act.TERMINATE not in acts[kills[0] :]


@given(STEPS, TIMES)
def test_nothing_happens_before_it_is_due(steps: list[tuple[str, float | None]], early: float) -> None:
    ladder = up()
    walk(ladder, steps)
    rung = ladder.rung
    if ladder.due is None or early < ladder.due:
        assert ladder.tick(early) == ()
        assert ladder.rung is rung
