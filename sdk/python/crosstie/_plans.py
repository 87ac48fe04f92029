"""What a type annotation means on the wire.

An annotation becomes a *plan*: a nested tuple that starts with a word. The JSON Schema is made from the plan
here, the converters are made from it by the server, so the two cannot disagree.
"""

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ._errors import ModelError

Plan = tuple[Any, ...]
JsonSchema = dict[str, Any]

#: What a model class carries once it was looked at: its fields.
FIELDS = "__crosstie_fields__"

_SCALARS: dict[Any, Plan] = {
    Any: ("any",),
    object: ("any",),
    str: ("str",),
    int: ("int",),
    float: ("float",),
    bool: ("bool",),
    None: ("none",),
    type(None): ("none",),
    date: ("date",),
    datetime: ("datetime",),
    time: ("time",),
    timedelta: ("timedelta",),
    Decimal: ("decimal",),
    UUID: ("uuid",),
    bytes: ("bytes",),
    bytearray: ("bytes",),
    dict: ("dict", ("any",)),
    list: ("list", ("any",)),
    tuple: ("tuple_of", ("any",)),
    set: ("set", ("any",)),
    frozenset: ("frozenset", ("any",)),
    collections.abc.Mapping: ("dict", ("any",)),
    collections.abc.Sequence: ("list", ("any",)),
    collections.abc.Iterable: ("list", ("any",)),
}

_SEQUENCES: dict[Any, str] = {
    list: "list",
    set: "set",
    frozenset: "frozenset",
    collections.abc.Sequence: "list",
    collections.abc.MutableSequence: "list",
    collections.abc.Iterable: "list",
    collections.abc.Collection: "list",
    collections.abc.Set: "frozenset",
    collections.abc.MutableSet: "set",
}

_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

_SCALAR_SCHEMAS: dict[str, JsonSchema] = {
    "any": {},
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "none": {"type": "null"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {
        "type": "string",
        "pattern": r"^\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?$",
        "examples": ["12:30:00"],
    },
    "timedelta": {"type": "number", "description": "seconds"},
    "decimal": {
        "type": ["string", "number"],
        "pattern": r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$",
        "examples": ["12.50"],
    },
    "uuid": {"type": "string", "format": "uuid"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, FIELDS)


def plan_of(annotation: Any) -> Plan:
    """The plan of ``annotation``; ``ModelError`` when it cannot be expressed in JSON."""
    try:
        if annotation in _SCALARS:
            return _SCALARS[annotation]
    except TypeError:
        pass
    if is_model(annotation):
        return ("model", annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum_plan(annotation)
    if isinstance(annotation, typing.TypeVar):
        return ("any",)
    supertype = getattr(annotation, "__supertype__", None)
    if supertype is not None:
        return plan_of(supertype)
    return _generic_plan(annotation)


def _generic_plan(annotation: Any) -> Plan:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return plan_of(arguments[0])
    if origin in (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar):
        return plan_of(arguments[0])
    if origin is typing.Literal:
        if not all(value is None or isinstance(value, str | int | bool) for value in arguments):
            raise ModelError(f"{annotation}: a Literal holds text, numbers, True, False or None")
        return ("literal", arguments)
    if origin is typing.Union or isinstance(annotation, types.UnionType):
        return ("union", tuple(plan_of(argument) for argument in arguments))
    if origin in _SEQUENCES:
        return (_SEQUENCES[origin], plan_of(arguments[0]))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return ("tuple_of", plan_of(arguments[0]))
        return ("tuple", tuple(plan_of(argument) for argument in arguments if argument != ()))
    if origin in _MAPPINGS:
        if plan_of(arguments[0]) not in (("str",), ("any",)):
            raise ModelError(f"{_shown(annotation)}: the keys of a JSON object are text")
        return ("dict", plan_of(arguments[1]))
    raise ModelError(f"{_shown(annotation)} has no form in JSON")


def _enum_plan(cls: type[enum.Enum]) -> Plan:
    values = [member.value for member in cls]
    if not values or not all(value is None or isinstance(value, str | int | float) for value in values):
        raise ModelError(f"{cls.__qualname__}: the values of an Enum are text, numbers, True, False or None")
    return ("enum", cls)


def _shown(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)


def schema_of(plan: Plan) -> JsonSchema:
    """One JSON Schema (2020-12) of ``plan``, with the models it mentions under ``$defs``."""
    writer = _Writer()
    if plan[0] == "model":
        writer.names[plan[1]] = ""
        schema = writer.object_of(plan[1])
        if writer.is_recursive:
            writer.names.clear()
            writer.definitions.clear()
            schema = writer.schema(plan)
    else:
        schema = writer.schema(plan)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    if writer.definitions:
        schema["$defs"] = writer.definitions
    return schema


class _Writer:
    """Writes one schema; every model it meets is written once."""

    def __init__(self) -> None:
        self.definitions: dict[str, JsonSchema] = {}
        self.names: dict[type, str] = {}
        self.is_recursive = False

    def schema(self, plan: Plan) -> JsonSchema:
        word = plan[0]
        if word in _SCALAR_SCHEMAS:
            return dict(_SCALAR_SCHEMAS[word])
        if word in ("list", "tuple_of"):
            return {"type": "array", "items": self.schema(plan[1])}
        if word in ("set", "frozenset"):
            return {"type": "array", "items": self.schema(plan[1]), "uniqueItems": True}
        if word == "tuple":
            items = [self.schema(item) for item in plan[1]]
            count = len(items)
            return {
                "type": "array",
                **({"prefixItems": items} if items else {}),
                "items": False,
                "minItems": count,
                "maxItems": count,
            }
        if word == "dict":
            return {"type": "object", "additionalProperties": self.schema(plan[1])}
        if word == "enum":
            return {"enum": [member.value for member in plan[1]]}
        if word == "literal":
            return {"enum": list(plan[1])}
        if word == "union":
            return self.union_of(plan[1])
        return self.reference_to(plan[1])

    def union_of(self, plans: tuple[Plan, ...]) -> JsonSchema:
        choices = [self.schema(plan) for plan in plans]
        simple = [choice for choice in choices if isinstance(choice.get("type"), str)]
        if len(choices) == 2 and choices[1] == {"type": "null"} and len(simple) == 2 and "enum" not in choices[0]:
            return {**choices[0], "type": [choices[0]["type"], "null"]}
        return {"anyOf": choices}

    def reference_to(self, model: type) -> JsonSchema:
        name = self.names.get(model)
        if name == "":
            self.is_recursive = True
            return {}
        if name is None:
            name, count = model.__name__, 1
            while name in self.definitions:
                count += 1
                name = f"{model.__name__}{count}"
            self.names[model] = name
            self.definitions[name] = {}
            self.definitions[name] = self.object_of(model)
        return {"$ref": f"#/$defs/{name}"}

    def object_of(self, model: type) -> JsonSchema:
        from ._model import fields_of

        properties: dict[str, JsonSchema] = {}
        required: list[str] = []
        for item in fields_of(model).values():
            properties[item.name] = {**self.schema(item.plan), **item.constraints}
            if item.required:
                required.append(item.name)
            elif item.schema_default is not None:
                properties[item.name]["default"] = item.schema_default[0]
        schema: JsonSchema = {"type": "object", "title": model.__name__, "properties": properties}
        doc = model.__dict__.get("__doc__")
        if doc and not doc.startswith(f"{model.__name__}("):
            schema["description"] = " ".join(doc.split())
        if required:
            schema["required"] = required
        if getattr(model, "__crosstie_extra__", "ignore") == "forbid":
            schema["additionalProperties"] = False
        return schema
