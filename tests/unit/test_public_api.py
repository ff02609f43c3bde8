"""What is public says what it does: every name has a docstring of its own, which names the errors it raises."""

import ast
import importlib
import importlib.resources
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import pytest

import swarmcg
import swarmcg.testing
from swarmcg import errors

MODULES: Final = ("swarmcg", "swarmcg.testing", "swarmcg.drone", "swarmcg.resources")
ERRORS: Final = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}
SHORTEST: Final = 20  # characters; less says nothing


def public() -> dict[str, Any]:
    """Everything that a user may name, and the public members of its classes, by dotted name."""
    found = {}
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            thing = getattr(importlib.import_module(module), name)
            if callable(thing) and hasattr(thing, "__module__"):
                found[f"{module}.{name}"] = thing
                found |= {f"{module}.{name}.{member}": value for member, value in members(thing)}
    return found


def members(kind: Any) -> Iterator[tuple[str, Any]]:
    """The methods and properties that the class defines itself."""
    if not isinstance(kind, type):
        return
    for name, value in vars(kind).items():
        if isinstance(value, property):
            yield name, value.fget
        elif not name.startswith("_") and isinstance(value, staticmethod | classmethod):
            yield name, value.__func__
        elif not name.startswith("_") and inspect.isfunction(value):
            yield name, value


PUBLIC: Final = public()


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_does(name: str) -> None:
    text = PUBLIC[name].__doc__
    assert text, f"{name} has no docstring"
    assert len(text) >= SHORTEST
    if isinstance(PUBLIC[name], type) and PUBLIC[name].__mro__[1] is not object:
        assert text is not PUBLIC[name].__mro__[1].__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_callable_raises_is_named(name: str) -> None:
    said = inspect.cleandoc(PUBLIC[name].__doc__ or "")
    for error in raised(PUBLIC[name]):
        kinds = [kind.__name__ for kind in ERRORS[error].__mro__ if kind.__name__ in ERRORS]
        assert any(kind in said for kind in kinds), f"{name} can raise {error}, and does not say so"


def raised(thing: Any) -> set[str]:
    """Our errors that the function, or the making of the class, raises: by itself or in helpers of its module."""
    module = inspect.getmodule(thing)
    assert module is not None
    if not (module.__name__.startswith("swarmcg.") and hasattr(module, "__file__")):
        return set()
    helpers = functions(ast.parse(inspect.getsource(module)))
    if isinstance(thing, type):
        starts = [f"{thing.__name__}.{name}" for name in ("__init__", "__post_init__")]
    else:
        starts = [thing.__qualname__]
    found: set[str] = set()
    done: set[str] = set()
    while starts:
        start = starts.pop()
        if start in done or start not in helpers:
            continue
        done.add(start)
        owner = start.rpartition(".")[0]
        for node in ast.walk(helpers[start]):
            if isinstance(node, ast.Raise):
                found |= kind_of(node, helpers)
            elif isinstance(node, ast.Call):
                starts += called(node, owner)
    return found


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{d.name}": d for d in node.body if isinstance(d, ast.FunctionDef)}
    return found | {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def called(node: ast.Call, owner: str) -> list[str]:
    if isinstance(node.func, ast.Name):
        return [node.func.id]
    if (
        isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    ):
        return [f"{owner}.{node.func.attr}"]
    return []


def kind_of(node: ast.Raise, helpers: dict[str, ast.FunctionDef]) -> set[str]:
    """The class of ours that is raised, also when a function of the module makes the error."""
    if not (isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)):
        return set()
    name = node.exc.func.id
    if name in helpers and isinstance(returns := helpers[name].returns, ast.Name):
        name = returns.id
    return {name} & ERRORS.keys()


def test_the_check_itself_sees_what_is_raised() -> None:
    assert raised(swarmcg.Config) == {"ConfigError"}
    assert "StateError" in raised(swarmcg.DroneStarter.start)
    text = "def f():\n    raise g()\ndef g() -> StateError: ..."
    helpers = functions(ast.parse(textwrap.dedent(text)))
    (node,) = (node for node in ast.walk(helpers["f"]) if isinstance(node, ast.Raise))
    assert kind_of(node, helpers) == {"StateError"}


@pytest.mark.parametrize("module", [swarmcg, swarmcg.testing])
def test_a_type_checker_knows_every_name(module: ModuleType) -> None:
    """Names that are resolved on first use have to be imported for it by hand."""
    blocks = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.If)]
    known = {
        alias.asname
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert known == set(module.__all__) - {"__version__"}


def test_types_are_shipped() -> None:
    assert importlib.resources.files("swarmcg").joinpath("py.typed").is_file()


def test_what_is_listed_is_there_and_what_is_there_is_listed() -> None:
    for module in (swarmcg, swarmcg.testing):
        assert dir(module) == sorted(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)
    assert {name for name, kind in ERRORS.items() if kind.__module__ == "swarmcg.errors"} <= set(
        swarmcg.__all__
    )
