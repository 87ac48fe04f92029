"""Exceptions for people: one line for a list, a traceback for the log, both without the server's frames."""

import traceback

from .units import shown

_HIDDEN = ("<frozen importlib", "<_crosstie_runtime>")


def traceback_of(error):
    """The traceback as text."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    _trim(told, set())
    return shown("".join(told.format()).rstrip())


def _trim(told, seen):
    if told is None or id(told) in seen:
        return
    seen.add(id(told))
    frames = [frame for frame in told.stack if not frame.filename.startswith(_HIDDEN)]
    told.stack = traceback.StackSummary.from_list(frames)
    _trim(told.__cause__, seen)
    _trim(told.__context__, seen)
    for inner in getattr(told, "exceptions", None) or ():
        _trim(inner, seen)


def reason_of(error, filenames):
    """One line: where in the unit it happened and what."""
    if isinstance(error, SyntaxError) and error.filename in filenames:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename in filenames:
            place = f"{frame.f_code.co_filename}, line {line}: "
    return shown(place + _what(error)).replace("\n", " ")


def _what(error):
    if isinstance(error, SystemExit):
        return f"the code calls sys.exit({error.code!r}) when it is imported"
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("_ct"):
        text += f" (`crosstie venv install` adds packages; {error.name.partition('.')[0]} is not there)"
    return text
