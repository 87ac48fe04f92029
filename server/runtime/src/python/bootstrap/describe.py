"""What a unit defines: its services with everything they declare."""

import ast
import inspect
import sys

import crosstie
from crosstie import Service
from crosstie._channels import Channel
from crosstie._plans import plan_of, schema_of

from .units import shown

#: Modules of a package that are not loaded: tests need what a server does not have, scripts run.
_SKIPPED = ("__main__", "conftest", "setup")
_METHODS = "handle_"


class Refused(Exception):
    """The unit cannot be deployed; the text says why."""


def load_unit(namespace, entry):
    """Imports the unit's modules: the file, or the whole package."""
    namespace.load(entry)
    for name in sorted(namespace.sources):
        if name.startswith(f"{entry}.") and not any(map(_is_skipped, name.split("."))):
            namespace.load(name)


def _is_skipped(part):
    return part in _SKIPPED or part == "tests" or part.startswith("test_") or part.endswith("_test")


def services_of(namespace):
    """The service classes that the unit's own modules define, by name."""
    found = {}
    for name, module in sorted(namespace.modules().items()):
        for cls in list(vars(module).values()):
            if not _is_service(cls) or cls.__module__ != module.__name__:
                continue
            service = _name_of(cls)
            known = found.setdefault(service, cls)
            if known is not cls:
                raise Refused(f"{where(cls)} and {where(known)} are both named {service!r}")
    return found


def _is_service(value):
    return (
        isinstance(value, type)
        and issubclass(value, Service)
        and value is not Service
        and not value.__name__.startswith("_")
        and bool(_handlers(value))
    )


def _handlers(cls):
    """The names of the handlers of ``cls``: ``handle`` alone, or one per method."""
    if callable(getattr(cls, "handle", None)):
        return ["handle"]
    names = [name for name in dir(cls) if name.startswith(_METHODS) and name[len(_METHODS) :].isupper()]
    return sorted(name for name in names if callable(getattr(cls, name)))


def _name_of(cls):
    name = cls.get_name()
    if not isinstance(name, str):
        raise Refused(f"{where(cls)}: the name of a service is text, not {name!r}")
    return name


def where(cls):
    """The file, line and name of a class, for people."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None) or shown(cls.__module__)
    line = ""
    for handler in _handlers(cls):
        code = getattr(inspect.unwrap(getattr(cls, handler)), "__code__", None)
        if code is not None:
            line = f", line {code.co_firstlineno}"
            break
    return f"{file}{line}: class {cls.__qualname__}"


def description_of(cls):
    """What the server must know of a service, as its manifest holds it."""
    handlers = _handlers(cls)
    deadline = cls.deadline_ms
    if deadline is not None and (not isinstance(deadline, int) or isinstance(deadline, bool) or deadline < 1):
        raise Refused(f"{where(cls)}: deadline_ms is a number of milliseconds, not {deadline!r}")
    return {
        "name": _name_of(cls),
        "doc": inspect.cleandoc(cls.__dict__.get("__doc__") or ""),
        "class": f"{shown(cls.__module__)}.{cls.__qualname__}",
        "is_async": _is_async(cls, handlers),
        "methods": [] if handlers == ["handle"] else [name[len(_METHODS) :] for name in handlers],
        "input": _declared(cls, "input", schema_of),
        "output": _declared(cls, "output", schema_of),
        "channels": [_channel(cls, channel) for channel in _channels(cls)],
        "deadline_ms": deadline,
    }


def _is_async(cls, handlers):
    kinds = {
        inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler)
        for handler in (inspect.unwrap(getattr(cls, name)) for name in handlers)
    }
    if len(kinds) > 1:
        raise Refused(f"{where(cls)}: its handlers are either all `async def` or none is")
    return kinds.pop()


def _declared(cls, attribute, form):
    declared = getattr(cls, attribute)
    if declared is None:
        return None
    if isinstance(declared, str | tuple | list):
        raise Refused(f"{where(cls)}: {attribute} is a Model or another type, not {declared!r}")
    try:
        return form(plan_of(declared))
    except crosstie.ModelError as error:
        raise Refused(f"{where(cls)}: {attribute}: {error}") from None


def _channels(cls):
    channels = cls.__dict__.get("channels", ())
    if isinstance(channels, Channel):
        return [channels]
    if not isinstance(channels, list | tuple | set):
        raise Refused(f"{where(cls)}: channels is a list, such as [rest('GET', '/path')]")
    return channels


def _channel(cls, channel):
    if not isinstance(channel, Channel):
        raise Refused(f"{where(cls)}: {channel!r} is no channel; rest(), http(), jsonrpc(), soap() and amqp() make one")
    options = channel.options
    if channel.type == "soap":
        options = {"operation": cls.__name__, **options}
    return {"type": channel.type, "path": channel.path, "options": options}


def loaded_service(cls):
    """What the server needs to run a service that was described before."""
    return {
        "class": cls,
        "handlers": _handlers(cls),
        "accept": cls.accept is not Service.accept,
        "before": cls.before_handle is not Service.before_handle,
        "after": cls.after_handle is not Service.after_handle,
        "streams": any(inspect.isasyncgenfunction(inspect.unwrap(getattr(cls, n))) for n in _handlers(cls)),
        "input": _declared(cls, "input", lambda plan: plan),
        "output": _declared(cls, "output", lambda plan: plan),
    }


def library_modules(namespace):
    """The modules of the shared library that the unit uses: those it loaded, and those its text imports,
    perhaps later, with what they import in turn.
    """
    library = namespace.library
    if library is None:
        return []
    used = set(library.modules())
    waiting = [source.content for source in namespace.sources.values()]
    while waiting:
        for name in _imported(waiting.pop()):
            for known in library.sources:
                if known not in used and (name == known or name.startswith(f"{known}.")):
                    used.add(known)
                    waiting.append(library.sources[known].content)
    return sorted(used)


def _imported(content):
    """The absolute names that a module's text imports."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def check_library(namespace):
    """Compiles every module of a shared library; those that use it run it."""
    for source in namespace.sources.values():
        compile(source.content, source.filename, "exec", dont_inherit=True)
