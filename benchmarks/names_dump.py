"""List the names of an installed sentence-transformers, or of minisbert.compat in its place, with their signatures.

    python benchmarks/names_dump.py                  # those of the installed package, as JSON
    python benchmarks/names_dump.py --compat < JSON  # the same names in minisbert.compat

The two cannot be imported in one process. A name is counted if it stands in an `__all__` list of the dense part of the
package, each object once, and so is each public method and property that such a class defines itself.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import pkgutil
import re
import sys
import types
from functools import cached_property
from typing import Any

ROOT = "sentence_transformers"
OTHER_MODELS = tuple(f"{ROOT}.{name}" for name in ("cross_encoder", "sparse_encoder", "multi_vector_encoder"))
# Classes that only lend their members to another one, whose members are looked at where minisbert has no such class.
LENT_TO = {
    "BaseModel": "SentenceTransformer",
    "PeftAdapterMixin": "SentenceTransformer",
    "BaseTrainer": "SentenceTransformerTrainer",
    "BaseTrainingArguments": "SentenceTransformerTrainingArguments",
    "BaseDataCollator": "SentenceTransformerDataCollator",
}
_HOLDER = f"{ROOT}.sentence_transformer"


def reference() -> dict[str, dict[str, Any]]:
    """Return what each counted name of the installed package is: the key is `Name` or `Class.member`."""
    root = importlib.import_module(ROOT)
    modules = [root]
    for found in pkgutil.walk_packages(root.__path__, f"{ROOT}."):
        if not found.name.startswith(OTHER_MODELS):
            modules.append(importlib.import_module(found.name))
    names: dict[str, dict[str, Any]] = {}
    seen: dict[int, str] = {}
    for module in sorted(modules, key=lambda one: (_order(one.__name__), one.__name__)):
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing) and hasattr(module, thing.__name__):
                name = thing.__name__  # not another name of it
            if id(thing) in seen or str(getattr(thing, "__module__", "")).startswith(OTHER_MODELS):
                continue
            assert name not in names, f"two things are called {name}"
            seen[id(thing)] = name
            names[name] = {"module": module.__name__.partition(".")[2], **described(thing)}
            if inspect.isclass(thing):
                for member in own_members(thing):
                    names[f"{name}.{member}"] = {"module": names[name]["module"], **member_of(thing, member)}
    return names


def _order(module: str) -> int:
    """Put the packages that code imports names from before those that hold the same names as well."""
    places = ("", "sentence_transformer.", "util", "base", "backend")
    place = module.partition(".")[2]
    return next(number for number in (1, 2, 3, 4, 0) if place.startswith(places[number]))


def own_members(cls: type) -> list[str]:
    """Return the public methods and properties that a class defines itself."""
    kinds = (types.FunctionType, classmethod, staticmethod, property, cached_property)
    return [name for name, value in vars(cls).items() if not name.startswith("_") and isinstance(value, kinds)]


def described(thing: Any) -> dict[str, Any]:
    """Return the kind of an object and, where it can be called, its parameters; of other objects their value."""
    if isinstance(thing, enum.EnumMeta):  # one whose members are functions has none
        return {"kind": "class", **({"value": {one.name: token(one.value) for one in thing}} if len(thing) else {})}
    if inspect.isclass(thing):
        return {"kind": "class", "parameters": parameters(thing)}
    if callable(thing):
        return {"kind": "function", "parameters": parameters(thing)}
    return {"kind": "constant", "value": token(thing)}


def member_of(cls: type, name: str) -> dict[str, Any]:
    """Return the kind and the parameters of a method or property."""
    value = inspect.getattr_static(cls, name, None)
    if value is None:
        return {"kind": "property", "value": "can be set"}  # an attribute of each instance
    if isinstance(value, property):
        return {"kind": "property", "value": "can be set" if value.fset else "cannot be set"}
    if isinstance(value, (cached_property, types.MemberDescriptorType)) or not callable(getattr(cls, name)):
        return {"kind": "property", "value": "can be set"}
    found = parameters(getattr(cls, name))
    bound = isinstance(value, (classmethod, staticmethod))
    return {"kind": "method", "parameters": found if bound else found[1:]}


def parameters(thing: Any) -> list[list[str]]:
    """Return name, kind and default of each parameter; the default as `token` writes it, "" if there is none."""
    made = {
        one.name: one.default_factory()
        for one in (dataclasses.fields(thing) if inspect.isclass(thing) and dataclasses.is_dataclass(thing) else ())
        if one.default_factory is not dataclasses.MISSING
    }
    return [
        [one.name, one.kind.name, "" if one.default is one.empty else token(made.get(one.name, one.default))]
        for one in inspect.signature(thing).parameters.values()
    ]


def token(value: Any) -> str:
    """Write a value so that equal values of both packages are written alike: objects by their type or name."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, (str, int, float, bool, bytes, type(None))):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(token, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{token(key)}: {token(one)}' for key, one in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(token, value))})"
    if inspect.isclass(value) or inspect.isroutine(value):  # a function without a public name has none to compare
        return "function" if value.__name__.startswith(("_", "<")) else str(value.__name__)
    return repr(value) if type(value).__module__ == "torch" else f"{type(value).__name__}()"


def compat(wanted: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what minisbert.compat has under each name, without those it has not or has a placeholder for.

    Beside the description there is `code`: file and line of the function that runs when the name is used.
    """
    from minisbert import compat as ours

    ours.install()
    found: dict[str, dict[str, Any]] = {}
    for key, one in wanted.items():
        name, _, member = key.partition(".")
        try:
            thing = getattr(importlib.import_module(f"{ROOT}.{one['module']}".rstrip(".")), name)
            if member and getattr(thing, "minisbert_missing", False) and name in LENT_TO:
                thing = getattr(importlib.import_module(_HOLDER), LENT_TO[name])
        except (ImportError, AttributeError) as error:
            print(f"{key}: {error}", file=sys.stderr)  # the table of paths promises what is not there
            continue
        if getattr(thing, "minisbert_missing", False):
            continue
        if not member:
            found[key] = {**described(thing), "code": code_of(thing)}
        elif _has(thing, member):
            found[key] = {**member_of(thing, member), "code": code_of(inspect.getattr_static(thing, member, None))}
    return found


def _has(cls: type, member: str) -> bool:
    """Return True if a class has a member, or sets it in each instance."""
    ours = [one for one in cls.__mro__ if one.__module__.partition(".")[0] == "minisbert"]
    named = hasattr(cls, member) or any(member in vars(one).get("__annotations__", ()) for one in ours)
    return named or any(re.search(rf"\bself\.{member}(: [^=\n]+)? = ", inspect.getsource(one)) for one in ours)


def code_of(thing: Any) -> list[Any] | None:
    """Return file and first line of the code that runs when a thing is used; None if it has none of its own."""
    if inspect.isclass(thing):
        makers = [vars(one)[name] for one in thing.__mro__ for name in ("__init__", "__new__") if name in vars(one)]
        found = [code for one in makers if (code := code_of(one)) is not None and "minisbert" in code[0]]
        return found[0] if found else None
    if isinstance(thing, property):
        thing = thing.fget
    if isinstance(thing, cached_property):
        thing = thing.func
    thing = inspect.unwrap(getattr(thing, "__func__", thing)) if thing is not None else None
    code = getattr(thing, "__code__", None)
    return None if code is None else [code.co_filename, code.co_firstlineno]


if __name__ == "__main__":
    json.dump(compat(json.load(sys.stdin)) if "--compat" in sys.argv else reference(), sys.stdout)
