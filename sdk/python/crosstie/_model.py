"""``Model``: what a service takes and gives, declared once.

Fields are annotations: text, numbers, ``bool``, ``None``, lists, sets, tuples, dicts with text keys, enums,
``Literal``, dates and times, ``Decimal``, ``UUID``, ``bytes`` (base64), other models, unions and ``Any``. A
field without a default is required, except one that may be ``None``: that is ``None`` when it is missing.
A list, dict or set given as a default is copied for each instance.

Fields a model does not know are ignored in what comes in; ``class Order(Model, extra="forbid")`` makes them
faults.
"""

from __future__ import annotations

import copy
import enum
import json
import sys
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

from ._errors import ModelError
from ._plans import FIELDS, JsonSchema, Plan, plan_of, schema_of

_T = TypeVar("_T")


class _Missing(enum.Enum):
    MISSING = "missing"


_MISSING = _Missing.MISSING
_CONTAINERS = (list, dict, set)


class _Declared:
    """What :func:`field` says about a field."""

    __slots__ = ("constraints", "default", "default_factory")

    def __init__(self, default: Any, default_factory: Any, constraints: JsonSchema) -> None:
        self.default = default
        self.default_factory = default_factory
        self.constraints = constraints


def field(
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] | None = None,
    description: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
    min_items: int | None = None,
    max_items: int | None = None,
) -> Any:
    """A field with more than a type: ``age: int = field(minimum=0, description="in years")``."""
    given = {
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "minLength": min_length,
        "maxLength": max_length,
        "pattern": pattern,
        "minItems": min_items,
        "maxItems": max_items,
    }
    constraints = {name: value for name, value in given.items() if value is not None}
    return _Declared(default, default_factory, constraints)


class Field:
    """One field of a model, resolved."""

    __slots__ = ("constraints", "default", "default_factory", "name", "plan", "required", "schema_default")

    def __init__(self, name: str, plan: Plan, declared: _Declared) -> None:
        self.name = name
        self.plan = plan
        self.constraints = declared.constraints
        self.default_factory = declared.default_factory
        self.default = declared.default
        if self.default_factory is None and isinstance(self.default, (*_CONTAINERS, Model)):
            shared = self.default
            self.default_factory = lambda: copy.deepcopy(shared)
        if self.default is _MISSING and self.default_factory is None and _may_be_none(plan):
            self.default = None
        self.required = self.default is _MISSING and self.default_factory is None
        self.schema_default = _schema_default(declared.default)

    def make_default(self) -> Any:
        return self.default if self.default_factory is None else self.default_factory()


def _may_be_none(plan: Plan) -> bool:
    return plan[0] == "none" or (plan[0] == "union" and any(_may_be_none(choice) for choice in plan[1]))


def _schema_default(value: Any) -> tuple[Any] | None:
    """The default as JSON, in a tuple as it may be ``None``; none when JSON does not have it."""
    if value is _MISSING:
        return None
    try:
        return (json.loads(json.dumps(value, default=_plain)),)
    except (TypeError, ValueError):
        return None


class _ModelType(type):
    def __new__(
        mcs, name: str, bases: tuple[type, ...], members: dict[str, Any], extra: str | None = None
    ) -> _ModelType:
        cls = super().__new__(mcs, name, bases, members)
        if extra is not None:
            if extra not in ("ignore", "forbid"):
                raise ModelError(f'{name}: extra is "ignore" or "forbid", not {extra!r}')
            cls.__crosstie_extra__ = extra  # type: ignore[attr-defined]
        return cls


def fields_of(model: type) -> dict[str, Field]:
    """The fields of ``model`` in the order of their declaration, those of its bases first."""
    found: dict[str, Field] | None = model.__dict__.get(FIELDS)
    if found is None:
        found = _resolve(model)
        setattr(model, FIELDS, found)
    return found


def _resolve(model: type) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for base in reversed(model.__mro__):
        if base is Model or not isinstance(base, _ModelType):
            continue
        if base is not model:
            fields.update(fields_of(base))
            continue
        for name, annotation in _annotations(base).items():
            if name.startswith("_") or typing.get_origin(annotation) is ClassVar or annotation is ClassVar:
                continue
            try:
                fields[name] = Field(name, plan_of(annotation), _declared(base, name))
            except ModelError as error:
                raise ModelError(f"field {name} of {model.__qualname__}: {error}") from None
    return fields


def _annotations(model: type) -> dict[str, Any]:
    module = sys.modules.get(model.__module__)
    names = dict(vars(model))
    names[model.__name__] = model
    resolved: dict[str, Any] = {}
    for name, annotation in model.__dict__.get("__annotations__", {}).items():
        if isinstance(annotation, str):
            try:
                annotation = typing.get_type_hints(
                    type("_", (), {"__annotations__": {name: annotation}}),
                    dict(vars(module)) if module else {},
                    names,
                    include_extras=True,
                )[name]
            except NameError as error:
                raise ModelError(f"field {name} of {model.__qualname__}: {error}") from None
        resolved[name] = annotation
    return resolved


def _declared(model: type, name: str) -> _Declared:
    value = model.__dict__.get(name, _MISSING)
    if isinstance(value, _Declared):
        return value
    # A model may also be a dataclass: what dataclasses.field() says is then kept elsewhere.
    known = model.__dict__.get("__dataclass_fields__", {}).get(name, value)
    if type(known).__module__ == "dataclasses":
        missing = sys.modules["dataclasses"].MISSING
        default = _MISSING if known.default is missing else known.default
        factory = None if known.default_factory is missing else known.default_factory
        return _Declared(default, factory, {})
    return _Declared(value, None, {})


@typing.dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Model(metaclass=_ModelType):
    """The base of declared input and output; see the module's text."""

    __crosstie_fields__: ClassVar[dict[str, Field]] = {}
    __crosstie_extra__: ClassVar[str] = "ignore"

    def __init__(self, **values: Any) -> None:
        fields = fields_of(type(self))
        missing: list[str] = []
        for name, item in fields.items():
            if name in values:
                setattr(self, name, values.pop(name))
            elif item.required:
                missing.append(name)
            else:
                setattr(self, name, item.make_default())
        if missing or values:
            raise TypeError(_complaint(type(self).__name__, missing, list(values)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict, models inside as dicts too; dates and the like stay what they are."""
        return {name: _to_plain(getattr(self, name)) for name in fields_of(type(self))}

    def to_json(self) -> str:
        """The model as JSON text."""
        if _native is not None:
            return typing.cast(str, _native.to_json(self))
        return json.dumps(self.to_dict(), default=_plain, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """An instance of ``data``, checked and converted like a request's body.

        ``ModelError`` lists every fault. Needs a server.
        """
        if _native is None:
            raise RuntimeError("Model.from_dict works inside a Crosstie server only")
        return typing.cast(Self, _native.from_dict(cls, data))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """As :meth:`from_dict`, from JSON text."""
        return cls.from_dict(json.loads(text))

    def clone(self, **changes: Any) -> Self:
        """A deep copy with other values for some fields."""
        twin = copy.deepcopy(self)
        unknown = [name for name in changes if name not in fields_of(type(self))]
        if unknown:
            raise TypeError(_complaint(type(self).__name__, [], unknown))
        for name, value in changes.items():
            setattr(twin, name, value)
        return twin

    @classmethod
    def json_schema(cls) -> JsonSchema:
        """The model's JSON Schema (2020-12), complete in itself."""
        return schema_of(("model", cls))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in fields_of(type(self)))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name, '?')!r}" for name in fields_of(type(self)))
        return f"{type(self).__name__}({shown})"


def _complaint(name: str, missing: list[str], unknown: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"misses {', '.join(missing)}")
    if unknown:
        parts.append(f"does not know {', '.join(unknown)}")
    return f"{name} {' and '.join(parts)}"


def _to_plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_to_plain(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """What JSON text has for a value it does not know; the server's encoder says the same."""
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, bytes | bytearray):
        import base64

        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


try:
    import _crosstie as _native
except ImportError:
    _native = None  # type: ignore[assignment]
