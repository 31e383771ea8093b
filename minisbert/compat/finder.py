"""`import sentence_transformers` and every module path below it, answered by minisbert.compat.

The modules are made when they are imported, and each name in one is looked up when it is first used. The paths and
names are those of `paths`.
"""

from __future__ import annotations

import importlib.abc
import logging
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, nearest
from . import missing, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = "sentence_transformers"
FOLLOWED = "6.2.0"  # the version whose interface is followed
_ORGANIZATION = "sentence-transformers"
_OWN = ("evaluation", "losses", "models", "util")  # modules of sentence-transformers that are packages here


def install() -> None:
    """Answer imports of `sentence_transformers` from now on, whether or not that package is installed.

    Another call changes nothing.

    Raises:
        ConfigError: if the package itself is imported already.
    """
    loaded = sys.modules.get(ROOT)
    if loaded is not None and not isinstance(loaded, CompatModule):
        version = getattr(loaded, "__version__", "")
        raise ConfigError(
            f"got minisbert.compat.install() after {ROOT}{version and f' {version}'} was imported, expected it "
            f"before: put it above the first import of {ROOT}, or run python -m minisbert.compat script.py"
        )
    if not any(isinstance(one, CompatFinder) for one in sys.meta_path):
        sys.meta_path.insert(0, CompatFinder())


def uninstall() -> None:
    """Undo `install()`: leave imports to Python again, and forget the modules that were made."""
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, CompatFinder)]
    for name, module in [*sys.modules.items()]:
        if isinstance(module, CompatModule):
            del sys.modules[name]


class CompatModule(ModuleType):
    """A module of sentence-transformers, whose names are objects of minisbert.compat or placeholders."""

    _path: str

    def __getattr__(self, name: str) -> Any:
        """Look up a name that was not used before, or import a module below this one."""
        found = self._look_up(name)
        super().__setattr__(name, found)
        return found

    def _look_up(self, name: str) -> Any:
        path = self.__dict__.get("_path", "")
        if name in paths.NAMES.get(path, ()) or name in paths.also(path):
            return resolve(path, name)
        if f"{path}.{name}".lstrip(".") in paths.NAMES:
            return submodule(name, self.__name__)
        if name == "logger" and path:
            return logging.getLogger(self.__name__)
        if name.startswith("__"):  # Python looks for such names in every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        raise AttributeError(unknown(self.__name__, name))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a module does not replace a name that the package offers, as CoSENTLoss in `losses`."""
        if not (isinstance(value, CompatModule) and name in paths.NAMES.get(self.__dict__.get("_path", ""), ())):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """List the names of the module, those of modules below it, and what was set."""
        below = f"{self._path}.".lstrip(".")
        modules = (name[len(below) :].partition(".")[0] for name in paths.NAMES if name.startswith(below))
        return sorted({*super().__dir__(), *paths.NAMES[self._path], *modules} - {""})


class CompatFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules of sentence-transformers."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a module, or None if it is another package's.

        Raises:
            ModuleNotFoundError: if sentence-transformers has no such module or name.
        """
        root, _, place = fullname.partition(".")
        if root != ROOT:
            return None
        if place in paths.NAMES:
            # Each module has a search path, even an empty one, so that Python asks here for a name that it has not.
            return ModuleSpec(fullname, self, origin="minisbert.compat", is_package=True)
        asking = sys._getframe(1).f_back  # this method is called by the import system
        if asking is None or asking.f_globals.get("__name__") == "importlib.util":
            return None  # importlib.util.find_spec asks; nothing is imported
        above, _, name = fullname.rpartition(".")
        raise ModuleNotFoundError(unknown(above, name), name=name, path=above)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make a module without any names."""
        return CompatModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Tell a module its path and the names that `import *` takes."""
        path = module.__name__.partition(".")[2]
        module.__dict__.update(
            _path=path,
            __doc__=f"The names of {module.__name__}, as minisbert.compat has them.",
            __all__=[name for name in paths.NAMES[path] if not name.startswith("_")],
        )
        if not path:
            module.__dict__.update(__version__=FOLLOWED, __MODEL_HUB_ORGANIZATION__=_ORGANIZATION)


def resolve(path: str, name: str) -> Any:
    """Return the object that a name of a module stands for; a name that minisbert has not is a placeholder."""
    home = paths.home(path, name)
    if home is not None:
        return getattr(submodule(home), name)
    if name in paths.NAMES and name not in paths.NAMES[""]:
        return submodule(name, ROOT)  # `util` among the names of a module of losses
    return missing.placeholder(paths.origin(path, name), name)


def submodule(name: str, package: str = __name__.rpartition(".")[0]) -> ModuleType:
    """Import a module of a package, of minisbert.compat unless another one is named."""
    return import_module(f"{package}.{name}")


def names_of(package: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package of minisbert.compat.

    It imports modules and names when they are first used, those that minisbert has not as placeholders.

    Args:
        package: its `__name__`; without "minisbert.compat." it is a path of sentence-transformers.
    """

    def look_up(name: str) -> Any:
        path = _path(package)
        if name in paths.NAMES[path]:
            return resolve(path, name)
        if not path and name in _OWN:
            return submodule(name)
        # `from package import name` asks here, and turns an AttributeError into an ImportError that says less; but the
        # name may be one of a module that is not imported yet.
        importing = sys._getframe(1).f_code.co_name == "_handle_fromlist"
        if name.startswith("__") or (importing and find_spec(f"{package}.{name}") is not None):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if importing:
            raise ImportError(unknown(package, name), name=package)
        raise AttributeError(unknown(package, name), name=name)

    return look_up


def unknown(module: str, name: str) -> str:
    """Say that a module has no such name, and where it is, or which ones are like it."""
    path, after = _path(module), "" if module.startswith(ROOT) else " after compat.install()"
    if name in paths.NAMES:
        return f"{module} has no {name}; it is {ROOT}.{name}{after}"
    places = [one for one, names in paths.NAMES.items() if name in names]
    if places:
        place = min(places, key=lambda one: (one not in ("", *_OWN), len(one)))
        root, after = (__package__, "") if after and place in ("", *_OWN) else (ROOT, after)
        return f"{module} has no {name}; it is in {root}.{place}".rstrip(".") + after
    every = {name: place for place in ("", path) for name in reversed(paths.NAMES.get(place, ()))}
    known = [name for name, place in reversed(every.items()) if paths.home(place, name)]
    return (
        f"{module} has no {name} as of sentence-transformers {FOLLOWED}; expected a name such as "
        f"{nearest(name, known, otherwise=known)}: docs/names.md lists every one"
    )


def _path(module: str) -> str:
    return module.removeprefix(__package__ or "").removeprefix(ROOT).lstrip(".")
