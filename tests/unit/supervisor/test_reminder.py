"""A program that was executed anew is told again, and no other."""

import os
import subprocess
import sys

import pytest

from swarmcg.supervisor.reminder import LOOK_EVERY_S, Image, Reminder, image_of

NOW = 100.0
OLD: Image = (1, 2, 3)
NEW: Image = (1, 2, 4)


def told(image: Image | None = OLD) -> Reminder:
    reminder = Reminder()
    reminder.told(image, NOW)
    assert reminder.due == NOW + LOOK_EVERY_S
    return reminder


def test_nobody_is_reminded_who_was_not_told() -> None:
    reminder = Reminder()
    assert reminder.due is None
    assert not reminder.forgotten(lambda: pytest.fail("it looked"), NOW)


def test_it_looks_only_now_and_then() -> None:
    reminder = told()
    assert not reminder.forgotten(lambda: pytest.fail("it looked"), NOW + LOOK_EVERY_S - 0.01)
    assert not reminder.forgotten(lambda: OLD, NOW + LOOK_EVERY_S)
    assert reminder.due == NOW + 2 * LOOK_EVERY_S


def test_another_program_is_reminded_once() -> None:
    reminder = told()
    looks = [OLD, NEW, NEW, OLD, OLD]
    assert [reminder.forgotten(lambda: image, NOW + 1 + at) for at, image in enumerate(looks)] == [  # noqa: B023
        False, True, False, True, False,
    ]  # fmt: skip


def test_who_cannot_be_looked_at_is_not_reminded() -> None:
    reminder = told()
    assert not reminder.forgotten(lambda: None, NOW + 1)
    assert reminder.forgotten(lambda: NEW, NOW + 2)
    blind = told(None)
    assert not blind.forgotten(lambda: OLD, NOW + 1)  # it may be the one that was told
    assert blind.forgotten(lambda: NEW, NOW + 2)


def test_an_exec_changes_the_image_and_nothing_else_does() -> None:
    wait = "sys.stdin.buffer.raw.read(1)"
    program = (
        f"import os, sys; {wait}; os.execv(sys.executable, [sys.executable, '-c', 'import sys; {wait}'])"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        before = other_image(process, None)
        assert image_of(process.pid) == before != image_of(os.getpid())
        process.stdin.write(b"x")
        after = other_image(process, before)
        assert image_of(process.pid) == after
    assert image_of(process.pid) is None


def other_image(process: subprocess.Popen[bytes], known: Image | None) -> Image:
    """The image as soon as there is one that is not known; in the middle of an exec there is none."""
    while (found := image_of(process.pid)) in {None, known}:
        assert process.poll() is None
    assert found is not None
    return found
