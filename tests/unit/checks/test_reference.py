"""The pages that are made from the code."""

from pathlib import Path

import pytest

from checks import reference
from swarmcg.cli.main import VERBS


def test_every_public_name_and_every_verb_stands_there() -> None:
    library, commands = reference.library(), reference.commands()
    for said in (
        "### Starter",
        "### WaitTimeout",
        "### DroneStarter",
        "### FakeBot",
        "### abbreviate_bot_id",
    ):
        assert f"{said}\n" in library
    assert "**`wait(timeout: float | None=None) -> ExitReport`**" in library
    assert "    bot_id: str\n    work_directory: str | os.PathLike[str]\n" in library
    for verb in VERBS:
        assert f"## swarmcg {verb}\n" in commands
    assert "- `-m, --memory SIZE`: " in commands
    assert "%(default)s" not in commands


def test_docstrings_become_markdown() -> None:
    def documented() -> None:
        """See :meth:`swarmcg.Bot.wait` and :class:`~swarmcg.bot.Config`, and ``code``."""

    assert reference._markdown(documented) == "See `swarmcg.Bot.wait` and `Config`, and `code`."


def test_a_page_that_is_stale_is_named_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    assert reference.main(["--check"]) == 1
    assert "docs/library.md" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "commands.md").write_text("by hand")
    capsys.readouterr()
    assert reference.main(["--check"]) == 1
    assert "run ./scripts/reference" in capsys.readouterr().out
