"""Components as fields of pydantic models: a name, or an object of name and settings, becomes the component itself."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from dataclasses import MISSING
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema
from torch import Tensor

from dvaepp.components.registry import Component, component, settings_of
from dvaepp.errors import InputError, nearest

MOST = 1_000_000
"""Whole numbers of components in recipes go up to this."""


class Settings(BaseModel):
    """Plain values, JSON both ways; nothing unknown is passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


class Plain:
    """`Annotated[Cells, Plain(Cells)]`: a frozen dataclass of plain values in a recipe, an object of its settings."""

    def __init__(self, made: type[Any]) -> None:
        self.made = made

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(settings_written)
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def read(self, value: Any) -> Any:
        """The dataclass of these settings; pydantic's error naming what is wrong, and where in it."""
        if isinstance(value, self.made):
            return value
        if not isinstance(value, dict):
            known = ", ".join(field.name for field in settings_of(self.made))
            raise _error((), f"expected an object with the settings {known}, not {reprlib.repr(value)}")
        return _made(self.made, value)


class Named:
    """`Annotated[Smoothing, Named(Smoothing)]`: a component of a kind in a recipe.

    "power", {"name": "power", "beta": 30} or the component itself becomes the component; written out it is an object of
    its name and all its settings.
    """

    def __init__(self, kind: type[Component]) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(written_out)
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def read(self, value: Any) -> Component:
        """The component that a value names; pydantic's error naming what is wrong, and where in it."""
        if isinstance(value, self.kind):
            return value
        settings = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            expected = f"a {self.kind.kind} is a name, or an object with one"
            raise _error((), f'{expected}, such as {{"name": ...}}, not {reprlib.repr(value)}')
        try:
            chosen = component(self.kind, name)
        except InputError as error:
            raise _error((), str(error)) from None
        made: Component = _made(chosen, settings)
        return made


def _made(chosen: type[Any], settings: dict[str, Any]) -> Any:
    model = settings_model(chosen)  # type: ignore[arg-type]
    try:
        values = model.model_validate_json(json.dumps(settings, default=written_out), strict=True)
        return chosen(**{field: getattr(values, field) for field in model.model_fields})
    except ValidationError as error:
        raise _error(*complaint(error.errors()[0], model)) from None
    except InputError as error:
        raise _error((), str(error)) from None


def written_out(chosen: Component) -> dict[str, Any]:
    """A component as an object of its name and its settings."""
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
    given = "" if first["type"] in ("missing", "value_error") else f", not {reprlib.repr(first['input'])}"
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
