"""Untyped values into typed ones, with errors that name the field as the OCI specification does."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from swarmcg.errors import ResourcesError

__all__ = ["json_value", "plain", "resources_in", "typed"]

T = TypeVar("T")

_LARGEST: Final = 2**64 - 1
_REMEDY: Final = "Correct it; docs/resources.md lists every field."
_NOT_A_VALUE: Final = "Give JSON as the OCI runtime specification has it, in UTF-8."


class _Object(dict[str, Any]):
    """A JSON object that remembers a name given twice, which a dict alone would hide."""

    twice: str | None = None

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        if len(self) != len(pairs):
            names = [name for name, _ in pairs]
            self.twice = next(name for name in self if names.count(name) > 1)


def json_value(text: str | bytes) -> Any:
    """The value that the JSON text holds; ResourcesError when it holds none."""
    if not isinstance(text, str | bytes):
        raise ResourcesError(
            "The resources are no JSON text", value=repr(text), remedy="Give it as str or bytes."
        )
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_Object)
    except RecursionError:
        cause = "it is nested far deeper than any resources are"
    except UnicodeDecodeError as e:
        cause = f"byte {e.start} is not UTF-8"
    except ValueError as e:  # JSONDecodeError, and Python's own bound on the digits of a number
        cause = str(e)
    raise ResourcesError("The resources are not valid JSON", cause=cause, remedy=_NOT_A_VALUE)


def resources_in(value: Any) -> Any:
    """The resources of a whole ``config.json``, whose rest is not judged; any other value itself."""
    if not isinstance(value, dict) or not value.keys() & {"ociVersion", "linux"}:
        return value
    linux = _member(value, "linux", "linux")
    return _member(linux, "resources", "linux.resources")


def _member(value: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(path, found, f"expected an object, got {_kind(found)}")
    return found


def plain(value: msgspec.Struct) -> Any:
    """The value in plain types, however wrongly it was put together; else ResourcesError."""
    try:
        return msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview))
    except (TypeError, ValueError, RecursionError) as e:
        raise ResourcesError(
            "The resources hold something that is no OCI value", cause=str(e), remedy=_REMEDY
        ) from None


def typed(value: Any, kind: type[T]) -> T:
    """The plain value as a ``kind``; ResourcesError with the field's path when it is none."""
    for path, part in _walk(value):
        _check_part(path, part)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise _explained(str(e), value, kind) from None


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every part of the value with its path; without recursion, so that no depth is too much."""
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        path, part = rest.pop()
        yield path, part
        if isinstance(part, dict):
            rest.extend((_joined(path, str(name)), inner) for name, inner in reversed(part.items()))
        elif isinstance(part, list | tuple):
            rest.extend((f"{path}[{i}]", inner) for i, inner in reversed(list(enumerate(part))))


def _check_part(path: str, part: Any) -> None:
    if isinstance(part, _Object) and part.twice is not None:
        raise _wrong(_joined(path, part.twice), part.twice, "the name stands twice in the same object")
    names = part if isinstance(part, dict) else ()
    for text in (part, *names):
        if isinstance(text, str) and not _is_unicode(text):
            raise _wrong(path, text, "it has half of a surrogate pair, which no UTF-8 text can hold")
    if isinstance(part, int) and part > _LARGEST:
        raise _wrong(path, part, "it is larger than any OCI number, which has 64 bits")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_LOCATED: Final = re.compile(r"(?P<cause>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


def _explained(message: str, value: Any, kind: type[Any]) -> ResourcesError:
    """The message of msgspec as one of ours: with our path, and with the value itself."""
    found = _LOCATED.fullmatch(message)
    cause, path = (found["cause"], (found["path"] or "").removeprefix(".")) if found else (message, "")
    if "[...]" in path:
        return _explained_entry(path.partition("[...]")[0], value, kind)
    if unknown := _UNKNOWN.fullmatch(cause):
        path = _joined(path, unknown[1])
        return _wrong(path, _at(value, path), "the OCI specification has no such field here")
    if missing := _MISSING.fullmatch(cause):
        return _wrong(_joined(path, missing[1]), None, "the field is required here, and it is missing")
    return _wrong(path, _at(value, path), cause[:1].lower() + cause[1:])


def _explained_entry(name: str, value: Any, kind: type[Any]) -> ResourcesError:
    """The same for an entry of a map: msgspec does not say which one, so each is tried by itself."""
    for key, entry in value[name].items():
        try:
            msgspec.convert({name: {"entry": entry}}, kind)
        except msgspec.ValidationError as e:
            inner = _explained(str(e).replace("[...]", ".entry"), {name: {"entry": entry}}, kind)
            path = f"{name}.{key}" + str(inner.path).removeprefix(f"{name}.entry")
            return _wrong(path, inner.value, inner.cause or "")
    raise AssertionError(name)  # one of them was refused before


def _at(value: Any, path: str) -> Any:
    """What stands at the path: the part itself where it is a scalar."""
    return next((part for at, part in _walk(value) if at == path), None)


def _wrong(path: str, value: Any, cause: str) -> ResourcesError:
    shown = (
        value if isinstance(value, str | int | float | bool) else _kind(value) if value is not None else None
    )
    what = f"{path} is not valid" if path else "The resources are not valid"
    return ResourcesError(what, path=path or None, value=shown, cause=cause, remedy=_REMEDY)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "an object"
        case list() | tuple():
            return "an array"
        case _:
            return repr(value)
