"""Components as fields of pydantic models: a name, or an object of name and settings, becomes the component itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema
from torch import Tensor

from dvaepp.components.registry import Component, component, said, settings_of
from dvaepp.errors import InputError, nearest

MOST = 1_000_000
"""Whole numbers of components in recipes go up to this."""
_LONGEST = 80
"""Letters of a value in a message."""


class Settings(BaseModel):
    """Plain values, JSON both ways; nothing unknown is passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


class Nested:
    """`Annotated[Cells, Nested(Cells)]`: a frozen dataclass of plain values in a recipe, an object of its settings."""

    def __init__(self, made: type[Any]) -> None:
        self.made = made

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(settings_written)
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def read(self, value: Any) -> Any:
        """The dataclass of these settings; pydantic's error naming what is wrong, and where in it."""
        if isinstance(value, self.made):
            _made(self.made, _tried(settings_written, value))
            return value
        if not isinstance(value, dict):
            known = ", ".join(field.name for field in settings_of(self.made))
            raise _error((), f"expected an object with the settings {known}, not {_shown(value)}")
        return _made(self.made, value)


class Named:
    """`Annotated[Smoothing, Named(Smoothing)]`: a component of a kind in a recipe.

    "power", {"name": "power", "beta": 30} or the component itself becomes the component; written out it is an object of
    its name and all its settings. A component that could not be read again from that is refused.
    """

    def __init__(self, kind: type[Component]) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(written_out)
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def read(self, value: Any) -> Component:
        """The component that a value names; pydantic's error naming what is wrong, and where in it."""
        if isinstance(value, self.kind):
            written = _tried(written_out, value)
            _made(_tried(component, self.kind, written.pop("name")), written)
            return value
        settings = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            kind = f"{'an' if self.kind.kind[0] in 'aeiou' else 'a'} {self.kind.kind}"
            raise _error((), f'{kind} is a name, or an object with one, such as {{"name": ...}}, not {_shown(value)}')
        made: Component = _made(_tried(component, self.kind, name), settings)
        return made


def _tried(read: Callable[..., Any], *given: Any) -> Any:
    try:
        return read(*given)
    except InputError as error:
        raise _error((), str(error)) from None


def _made(chosen: type[Any], settings: dict[Any, Any]) -> Any:
    try:
        model = settings_model(chosen)  # type: ignore[arg-type]
        values = model.model_validate_json(json.dumps(settings, default=_as_json), strict=True)
        return chosen(**{field: getattr(values, field) for field in model.model_fields})
    except ValidationError as error:
        raise _error(*complaint(error.errors()[0], model)) from None
    except InputError as error:
        raise _error((), str(error)) from None
    except Exception as error:  # whatever the class itself may raise
        raise _error((), f"{chosen.__name__} cannot be made of {_shown(settings)}: {said(error)}") from error


def _as_json(value: Any) -> Any:
    """What json.dumps does not know: components, and numpy's numbers."""
    if isinstance(value, Component):
        return written_out(value)
    if isinstance(value, np.generic) and isinstance(value.item(), bool | int | float | str):
        return value.item()
    raise InputError(f"expected values that JSON has, not the {type(value).__name__} {_shown(value)}")


def _shown(value: Any) -> str:
    """A value as JSON has it, the middle of a long one left out."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, TypeError, RecursionError):
        text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 3 :]}"


def written_out(chosen: Component) -> dict[str, Any]:
    """A component as an object of its name and its settings; InputError for a class that states no name of its own."""
    if "name" not in vars(type(chosen)):
        raise InputError(f"{type(chosen).__name__} states no name of its own, by which a recipe could hold it")
    return {"name": chosen.name, **settings_written(chosen)}


def settings_written(chosen: Any) -> dict[str, Any]:
    """The settings of a component, or of another dataclass of plain values, as JSON has them."""
    values = {field.name: getattr(chosen, field.name) for field in settings_of(type(chosen))}
    return {name: written_out(value) if isinstance(value, Component) else value for name, value in values.items()}


@cache
def settings_model(chosen: type[Any]) -> type[Settings]:
    """The pydantic model of a component's settings, from its fields: their types, but for tensors, and defaults."""
    hints = get_type_hints(chosen, include_extras=True)
    made: dict[str, Any] = {}
    for field in settings_of(chosen):
        if field.default_factory is not MISSING:
            default = Field(default_factory=field.default_factory)
        else:
            default = Field() if field.default is MISSING else Field(default=field.default)
        if hasattr(Settings, field.name):
            raise InputError(f"no setting of {chosen.__name__} can be called {field.name}")
        made[field.name] = (_plain(hints[field.name]), default)
    return create_model(chosen.__name__, __base__=Settings, **made)


def _plain(hint: Any) -> Any:
    """A type as JSON has it: without tensors, whole numbers bounded, components by name."""
    if isinstance(hint, type) and issubclass(hint, Component):
        return Annotated[hint, Named(hint)]
    if hint is int:
        return Annotated[int, Field(le=MOST)]
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, (_plain(each) for each in get_args(hint) if each is not Tensor))
    if get_origin(hint) is tuple:
        return tuple[tuple(each if each is ... else _plain(each) for each in get_args(hint))]  # type: ignore[misc]
    return hint


def complaint(first: ErrorDetails, model: type[BaseModel]) -> tuple[tuple[str, ...], str]:
    """Where in the model's values pydantic's first error lies, and what is wrong there."""
    path = tuple(str(part) for part in first["loc"])
    if first["type"] == "component":
        context = first["ctx"]
        return (*path, *context["path"]), context["text"]
    if first["type"] == "extra_forbidden":
        return path, f"is unknown{nearest_setting(path, model)}"
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("missing", "value_error") else f", not {_shown(first['input'])}"
    return path, f"{message}{given}"


def nearest_setting(path: Iterable[str], model: type[BaseModel]) -> str:
    """The nearest of the settings that there are where an unknown one was given, or all of them."""
    *outer, last = path
    for part in outer:
        annotation = model.model_fields[part].annotation
        annotation = next((each for each in get_args(annotation) if isinstance(each, type)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    known = list(model.model_fields)
    if not known:
        return "; there is nothing to set"
    return nearest(last, known) or f"; it may be one of {', '.join(known)}"


def _error(path: tuple[str, ...], text: str) -> PydanticCustomError:
    return PydanticCustomError("component", "{text}", {"path": path, "text": text})
