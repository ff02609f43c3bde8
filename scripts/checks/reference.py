"""The part of the reference that is made from the code: docstrings of the library, flags of the command line.

What it writes depends on the code alone, not on the Python that runs it, so that a check can compare.
"""

import argparse
import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from swarmcg.cli.main import VERBS

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
MADE: Final = "<!-- Made by scripts/reference; what is written here by hand is lost. -->\n"
LIBRARY: Final = (
    ("swarmcg", "What programs use."),
    ("swarmcg.drone", "Work directories below one directory."),
    ("swarmcg.testing", "For the tests of those who use swarmcg."),
)
ROLE: Final = re.compile(r":[a-z]+:`(~?)([^`]+)`")


def library() -> str:
    """Every public name with its signature and docstring, one section a module."""
    parts = [f"{MADE}\n# Library\n"]
    for name, about in LIBRARY:
        parts.append(f"## {name}\n\n{about}\n")
        module = importlib.import_module(name)
        for public in sorted(module.__all__, key=str.lower):
            thing = getattr(module, public)
            if callable(thing):
                parts += _entry(public, thing)
    return "\n".join(parts)


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"```text\n{_shape(name, thing)}\n```\n"  # as python, the formatter would change it
    yield f"{_markdown(thing)}\n"
    for member, method in _members(thing):
        yield f"- **`{member}{_arguments(method)}`**  \n" + _indented(_markdown(method)) + "\n"


def _shape(name: str, thing: Any) -> str:
    """How it is called; of a plain value, its fields."""
    if hasattr(thing, "__struct_fields__") or hasattr(thing, "_fields"):
        lines = [line for kind in reversed(thing.__mro__) for line in _fields(kind)]
        return "\n".join([f"class {name}:", *lines])
    if isinstance(thing, type):
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        init = vars(thing).get("__init__")
        written = inspect.isfunction(init) and init.__code__.co_filename == inspect.getfile(thing)
        made = f"({_definition(init)})" if written else ""
        return f"class {name}{made or (f'({bases})' if bases else '')}"
    return f"def {name}{_arguments(thing)}"


def _fields(kind: type) -> Iterator[str]:
    if not kind.__module__.startswith("swarmcg"):
        return
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)  # noqa: S101  the source of a class
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            yield f"    {ast.unparse(node)}"


def _members(thing: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(thing, type):
        return
    for name, value in vars(thing).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield name, value
        elif isinstance(value, staticmethod | classmethod) or inspect.isfunction(value):
            yield name, getattr(value, "__func__", value)


def _arguments(function: Any) -> str:
    if isinstance(function, property):
        return ""
    node = _node(function)
    returns = f" -> {_plain(node.returns)}" if node.returns is not None else ""
    return f"({_definition(function)}){returns}"


def _definition(function: Any) -> str:
    """The arguments without the instance."""
    node = _node(function)
    ordered = [*node.args.posonlyargs, *node.args.args]
    if ordered and ordered[0].arg in {"self", "cls"}:
        (node.args.posonlyargs or node.args.args).pop(0)
    return ast.unparse(node.args)


def _node(function: Any) -> ast.FunctionDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)  # noqa: S101  the source of a function
    return node


def _plain(node: ast.expr) -> str:
    return ast.unparse(node).strip("'")


def _markdown(thing: Any) -> str:
    """The docstring; names in it as code."""
    text = inspect.cleandoc(thing.__doc__ or "")
    text = ROLE.sub(lambda found: f"`{found[2].rpartition('.')[2] if found[1] else found[2]}`", text)
    return text.replace("``", "`")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())


def commands() -> str:
    """Every verb with its flags, as its own --help has them."""
    parts = [f"{MADE}\n# Commands\n"]
    for verb, about in VERBS.items():
        parser = vars(importlib.import_module(f"swarmcg.cli.{verb}"))["_parser"]()
        parts.append(f"## swarmcg {verb}\n\n{about[:1].upper()}{about[1:]}.\n")
        for group in parser._action_groups:  # noqa: SLF001  argparse has no other way to its groups
            shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]  # noqa: SLF001  the same
            lines = [_flag(parser, action) for action in shown if action.dest != "help"]
            if lines:
                head = f"**{group.title}**" + (f": {group.description}" if group.description else "")
                parts.append("\n".join([f"{head}\n", *lines]) + "\n")
        parts.append(f"```text\n{(parser.epilog or '').rstrip()}\n```\n")
    return "\n".join(parts)


def _flag(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    metavar = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if action.choices is not None and not action.metavar:
        metavar = "|".join(map(str, action.choices))
    shown = ", ".join(action.option_strings) + (f" {metavar}" if metavar and action.nargs != 0 else "")
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"- `{shown.strip()}`: {text}"


PAGES: Final = {"library.md": library, "commands.md": commands}


def main(words: list[str]) -> int:
    """Writes the pages, or with ``--check`` says which are not as the code has it; 1 then."""
    parser = argparse.ArgumentParser(
        prog="scripts/reference", description="Writes docs/library.md and docs/commands.md from the code."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say which is not up to date (exit status 1 then)"
    )
    asked = parser.parse_args(words)
    stale = [name for name, make in PAGES.items() if not _is_current(DOCS / name, make())]
    if asked.check:
        for name in stale:
            print(f"docs/{name} is not as the code has it: run ./scripts/reference")
        return int(bool(stale))
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"docs/{name} is written")
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
