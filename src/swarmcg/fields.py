"""The fields of a Config that hold what any caller may get wrong: whether they are of the type that they must have."""

import os
from collections.abc import Mapping

from swarmcg.errors import ConfigError

__all__ = ["check_count", "check_environment", "check_names", "check_path"]


def check_path(field: str, value: object) -> None:
    """Raises ConfigError for what is no path as text: bytes, too, since logs, reports and sockets are named after
    it; and for the empty one, which would be wherever the caller is.
    """
    path = value
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
    if not isinstance(path, str):
        raise ConfigError(
            f"{field} is no path: {value!r}",
            path=field,
            cause="it is a str, or an os.PathLike of one",
            remedy="Give it as in '/b/s' or pathlib.Path('/b/s'); bytes go through os.fsdecode.",
        )
    if not path:
        raise ConfigError(f"{field} is empty", path=field, value=path, remedy="Name what is meant.")


def check_names(field: str, value: object) -> None:
    """Raises ConfigError for what is no set of texts. A single text is a collection of its letters to Python, and
    to nobody else.
    """
    if isinstance(value, frozenset | set | list | tuple) and all(isinstance(name, str) for name in value):
        return
    raise ConfigError(
        f"{field} is no set of names: {value!r}",
        path=field,
        cause="it holds fields of the resources, each as text",
        remedy="Give it as in frozenset({'memory.swap'}).",
    )


def check_count(field: str, value: object) -> None:
    """Raises ConfigError for what is no whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return
    raise ConfigError(
        f"{field} is no whole number: {value!r}", path=field, remedy="Give a number of bytes, as in 60."
    )


def check_environment(field: str, value: object) -> None:
    """Raises ConfigError for what is no mapping of names to values that a process can have in its environment."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{field} is no mapping: {value!r}",
            path=field,
            cause="it maps the names of environment variables to their values",
            remedy="Give it as in {'NAME': 'value'}.",
        )
    for name, text in value.items():
        _check_variable(field, name, text)


def _check_variable(field: str, name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise ConfigError(
            f"A variable of {field} is not text: {name!r}: {value!r}",
            path=field,
            cause="names and values are str",
            remedy="Give both as text.",
        )
    if not name or "=" in name or "\0" in name + value:
        raise ConfigError(
            "An environment variable cannot be set",
            path=field,
            value=f"{name}={value}",
            cause="a name is non-empty and has no '=', and neither name nor value has a NUL character",
            remedy=f"Correct it in {field}.",
        )
