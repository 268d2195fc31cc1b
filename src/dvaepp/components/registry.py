"""Components and how they are found: a class that states its name is known by it from the moment it is defined."""

from __future__ import annotations

import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from inspect import getdoc
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_origin, get_type_hints

from dvaepp.errors import InputError, nearest

OF_DATA = {"of_data": True}
"""Metadata of a component's field that the data decide, and no recipe: `field(default=2, metadata=OF_DATA)`."""
ENTRY_POINTS = "dvaepp"
"""The group of entry points by which an installed package names modules of components."""
ENVIRONMENT = "DVAEPP_IMPORT"
"""Modules of components to import, by name or as .py files, with commas between them, which no path may hold."""
_RESERVED = re.compile(r"(name|kind|folder)$|model_|_")


class Component:
    """A frozen dataclass of plain values that recipes choose by its `name`; called with its context it does its work.

    A `kind` of components is a base class that states what they are called, and the folder (a package) whose modules
    hold the library's own. A subclass that states `name` is found by it: nothing else lists it. Its fields are its
    settings, with their defaults; what it refuses in __post_init__ a recipe refuses. One that is defined again, as in a
    notebook, takes the place of the former. Two of one name raise InputError, and so does a name that no setting could
    hold; whatever else is wrong with it (`faults`) refuses it where it is asked for.
    """

    kind: ClassVar[str]
    folder: ClassVar[str]
    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            known = _KNOWN.setdefault(cls.kind, {})
            if not (isinstance(cls.name, str) and re.fullmatch(r"[^\s/]+", cls.name)):
                raise InputError(f"the name of {_place(cls)} must be a word without spaces and /, not {cls.name!r}")
            other = known.get(cls.name, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise InputError(f"two classes are the {cls.kind} {cls.name!r}: {_place(other)} and {_place(cls)}")
            known[cls.name] = cls


_KNOWN: dict[str, dict[str, type[Component]]] = {}
C = TypeVar("C", bound=Component)


def components(kind: type[C]) -> dict[str, type[C]]:
    """Every component of a kind by its name: the library's own, and those of modules that were imported.

    Modules that installed packages name as entry points of the group `dvaepp`, or the environment's DVAEPP_IMPORT, are
    imported first; InputError for one that cannot be. Classes with a fault are left out: `faults` has them.
    """
    wrong = faults(kind)
    return {name: each for name, each in _all(kind).items() if name not in wrong}


def faults(kind: type[Component]) -> dict[str, str]:
    """What is wrong with the classes of a kind that cannot be used, a sentence for each name."""
    found = {name: _fault_of(each) for name, each in _all(kind).items()}  # type: ignore[arg-type]
    return {name: why for name, why in found.items() if why is not None}


def _all(kind: type[C]) -> dict[str, type[C]]:
    _import_own(kind.folder)
    _import_others(os.environ.get(ENVIRONMENT, ""))
    return dict(sorted(_KNOWN.get(kind.kind, {}).items()))  # type: ignore[arg-type]


def component(kind: type[C], name: str) -> type[C]:
    """The component of a kind by its name.

    InputError with the nearest name for one that there is not, and with the fault of one that cannot be used.
    """
    known = components(kind)
    if name not in known:
        if (why := faults(kind).get(name)) is not None:
            raise InputError(why)
        hint = nearest(name, list(known)) or f"; modules that define others are named by {ENVIRONMENT}"
        raise InputError(f"no {kind.kind} is named {name!r}{hint} (one of {', '.join(known)})")
    return known[name]


@cache
def _fault_of(chosen: type[Component]) -> str | None:
    """Why no recipe can use the class, in a sentence that names it; None where it can.

    A class is looked at once, when it is first asked for: @dataclass makes its fields after it is defined.
    """
    try:
        hints = [hint for each in chosen.__mro__ for hint in get_type_hints(each).items()]
    except Exception as error:  # whatever the expressions that annotations are may raise
        why: str | None = f"its annotations cannot be read: {said(error)}"
    else:
        why = _fault(chosen, hints)
    return None if why is None else f"the {chosen.kind} {chosen.name!r} ({_place(chosen)}) cannot be used: {why}"


def _fault(chosen: type[Component], hints: list[tuple[str, Any]]) -> str | None:
    of_class = {name for name, hint in hints if ClassVar in (hint, get_origin(hint))}
    own = [name for name in vars(chosen).get("__annotations__", {}) if name not in of_class]
    if own and "__dataclass_fields__" not in vars(chosen):
        return f"it has the fields {', '.join(own)} but is no dataclass; write @dataclass(frozen=True) before it"
    if missing := sorted(getattr(chosen, "__abstractmethods__", ())):
        return f"it does not define {', '.join(missing)}"
    if missing := sorted(name for name in of_class if not hasattr(chosen, name)):
        return f"it does not state {', '.join(missing)}"
    reserved = [each.name for each in settings_of(chosen) if _RESERVED.match(each.name)]
    return f"no setting can be called {', '.join(reserved)} (a name is a ClassVar)" if reserved else None


def settings_of(chosen: type[Any]) -> list[Field[Any]]:
    """The fields that a recipe may set."""
    every = fields(chosen) if is_dataclass(chosen) else ()
    return [field for field in every if field.init and not field.metadata.get("of_data")]


def described(chosen: type[Any]) -> str:
    """The first line of its documentation, and its settings with their defaults."""
    settings = [f"{each.name}={_default(each)}" for each in settings_of(chosen)]
    return " ".join([(getdoc(chosen) or "").split("\n")[0], *([f"({', '.join(settings)})"] if settings else [])])


def said(error: BaseException) -> str:
    """An exception in one line: what it says, after its type where that is not of this library."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}{': ' * bool(text)}{text}"


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
        with _importing(f"the entry point {point.name} of the group {ENTRY_POINTS} names {point.value}"):
            point.load()
    for name in filter(None, map(str.strip, named.split(","))):
        with _importing(f"{ENVIRONMENT} names {name}"):
            _import_file(Path(name).expanduser()) if name.endswith(".py") else import_module(name)


@contextmanager
def _importing(named: str) -> Iterator[None]:
    """Whatever a module that others wrote raises on import, or exits with, becomes an InputError."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(f"{named}, which cannot be imported: {said(error)}") from error


def _import_file(path: Path) -> None:
    name, known = path.stem, sys.modules.get(path.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
            return
        raise ImportError(f"the name {name} is taken")
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no module")
    sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except BaseException:
        sys.modules.pop(name, None)
        raise


def _place(chosen: type[Component]) -> str:
    return f"{chosen.__module__}.{chosen.__qualname__}"
