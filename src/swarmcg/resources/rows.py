"""The kinds of rows that the controllers' modules give, and the one error they raise."""

from typing import NoReturn

from swarmcg.bot import Row
from swarmcg.errors import ResourcesError

__all__ = ["impossible", "nonsense", "satisfied", "written"]


def written(field: str, file: str, value: object, why: str) -> Row:
    """The value is to be written into the file."""
    return Row(field=field, file=file, value=str(value), why=why, enforceable=True)


def satisfied(field: str, file: str | None, why: str) -> Row:
    """Nothing needs to be written for the field to hold."""
    return Row(field=field, file=file, value=None, why=why, enforceable=True)


def impossible(field: str, why: str, remedy: str, *, file: str | None = None, value: object = None) -> Row:
    """The field cannot be put in force here."""
    shown = None if value is None else str(value)
    return Row(field=field, file=file, value=shown, why=why, enforceable=False, remedy=remedy)


def nonsense(field: str, value: object, cause: str, remedy: str) -> NoReturn:
    """Raises ResourcesError: the value means nothing on any host, or nothing on this one."""
    raise ResourcesError(f"{field} makes no sense", path=field, value=value, cause=cause, remedy=remedy)
