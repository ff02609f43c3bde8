"""Imports every module of the package; says which could be, and what hindered the others."""

import contextlib
import importlib
import json
import sys
from pathlib import Path

import swarmcg

found: dict[str, str | None] = {}
top = Path(swarmcg.__file__).parent
for path in sorted(top.rglob("*.py")):
    name = ".".join(path.relative_to(top.parent).with_suffix("").parts).removesuffix(".__init__")
    found[name] = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    except (ImportError, AssertionError) as e:
        found[name] = repr(e)
public = [name for name in swarmcg.__all__ if getattr(swarmcg, name) is not None]
print(json.dumps({"modules": found, "public": public}))
