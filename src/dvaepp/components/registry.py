"""Components and how they are found: a class that states its name is known by it from the moment it is defined."""

from __future__ import annotations

import os
import pkgutil
import sys
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from inspect import getdoc
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dvaepp.errors import InputError, nearest

OF_DATA = {"of_data": True}
"""Metadata of a component's field that the data decide, and no recipe: `field(default=2, metadata=OF_DATA)`."""
ENTRY_POINTS = "dvaepp"
"""The group of entry points by which an installed package names modules of components."""
ENVIRONMENT = "DVAEPP_IMPORT"
"""Modules of components to import, by name or as .py files, with commas between them."""


class Component:
    """A frozen dataclass of plain values that recipes choose by its `name`; called with its context it does its work.

    A `kind` of components is a base class that states what they are called, and the folder (a package) whose modules
    hold the library's own. A subclass that states `name` is found by it: nothing else lists it. Its fields are its
    settings, with their defaults; what it refuses in __post_init__ a recipe refuses. One that is defined again, as in a
    notebook, takes the place of the former. Two of one name raise InputError.
    """

    kind: ClassVar[str]
    folder: ClassVar[str]
    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            known = _KNOWN.setdefault(cls.kind, {})
            other = known.get(cls.name, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise InputError(f"two classes are the {cls.kind} {cls.name!r}: {_place(other)} and {_place(cls)}")
            known[cls.name] = cls


_KNOWN: dict[str, dict[str, type[Component]]] = {}
C = TypeVar("C", bound=Component)


def components(kind: type[C]) -> dict[str, type[C]]:
    """Every component of a kind by its name: the library's own, and those of modules that were imported.

    Modules that installed packages name as entry points of the group `dvaepp`, or the environment's DVAEPP_IMPORT, are
    imported first.
    """
    _import_own(kind.folder)
    _import_others(os.environ.get(ENVIRONMENT, ""))
    return dict(sorted(_KNOWN.get(kind.kind, {}).items()))  # type: ignore[arg-type]


def component(kind: type[C], name: str) -> type[C]:
    """The component of a kind by its name; InputError with the nearest name for one that there is not."""
    known = components(kind)
    if name not in known:
        hint = nearest(name, list(known)) or f"; modules that define others are named by {ENVIRONMENT}"
        raise InputError(f"no {kind.kind} is named {name!r}{hint} (one of {', '.join(known)})")
    return known[name]


def settings_of(component: type[Any]) -> list[Field[Any]]:
    """The fields that a recipe may set."""
    every = fields(component) if is_dataclass(component) else ()
    return [field for field in every if not field.metadata.get("of_data")]


def described(component: type[Any]) -> str:
    """The first line of its documentation, and its settings with their defaults."""
    settings = [f"{each.name}={_default(each)}" for each in settings_of(component)]
    return " ".join([(getdoc(component) or "").split("\n")[0], *([f"({', '.join(settings)})"] if settings else [])])


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return str(field.default_factory())
    return "..." if field.default is MISSING else str(field.default)


@cache
def _import_own(folder: str) -> None:
    package = import_module(folder)
    for module in pkgutil.iter_modules(package.__path__, f"{folder}."):
        import_module(module.name)


@cache
def _import_others(named: str) -> None:
    for point in entry_points(group=ENTRY_POINTS):
        point.load()
    for name in filter(None, map(str.strip, named.split(","))):
        try:
            _import_file(Path(name)) if name.endswith(".py") else import_module(name)
        except (ImportError, OSError, SyntaxError) as error:
            raise InputError(f"{ENVIRONMENT} names {name}, which cannot be imported: {error}") from None


def _import_file(path: Path) -> None:
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or path.stem in sys.modules:
        raise ImportError(f"the name {path.stem} is taken" if path.stem in sys.modules else "it is no module")
    module = sys.modules[path.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)


def _place(component: type[Component]) -> str:
    return f"{component.__module__}.{component.__qualname__}"
