"""What the interpreter as a whole needs inside a worker: logging, standard streams, multiprocessing."""

import importlib.machinery
import io
import logging
import sys
import threading

import _crosstie

from .tracebacks import traceback_of
from .units import PREFIX, packed, shown


class _Handler(logging.Handler):
    """Passes records of ``logging`` to the server's log."""

    def emit(self, record):
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}\n{traceback_of(record.exc_info[1])}"
        _crosstie.log(record.levelno, shown(record.name), text)


class _Stream(io.TextIOBase):
    """What services print becomes log records, one for each line."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name, level):
        self._name = name
        self._level = level
        self._begun = threading.local()

    def writable(self):
        return True

    def write(self, text):
        whole = getattr(self._begun, "text", "") + text
        *lines, rest = whole.split("\n")
        if len(rest) > 65536:
            lines.append(rest)
            rest = ""
        self._begun.text = rest
        for line in lines:
            if line:
                _crosstie.log(self._level, self._name, line)
        return len(text)

    def fileno(self):
        return {"stdout": 1, "stderr": 2}[self._name]


def _thread_failed(told):
    if told.exc_type is not SystemExit and told.exc_value is not None:
        name = told.thread.name if told.thread else "?"
        _crosstie.log(logging.ERROR, "threading", f"thread {name} failed\n{traceback_of(told.exc_value)}")


def _unraisable(told):
    if told.exc_value is not None:
        text = told.err_msg or "Exception ignored"
        _crosstie.log(logging.ERROR, "python", f"{text}\n{traceback_of(told.exc_value)}")


#: What a fresh interpreter runs so that it finds the SDK and the modules of the unit that started it.
_CHILD = """
import types
seed = types.ModuleType("_crosstie_seed")
exec(packages["_crosstie_runtime"]["memory.py"], seed.__dict__)
seed.install(packages)
from _crosstie_runtime import units
units.install()
units.restore(namespaces)
"""


class _Child:
    """Runs ``_CHILD`` in the process that unpickles it."""

    def __init__(self, caller):
        self.caller = caller

    def __reduce__(self):
        packages = next(finder.packages for finder in sys.meta_path if hasattr(finder, "packages"))
        return exec, (_CHILD, {"packages": packages, "namespaces": packed(self.caller)})


def _spawn_by_default(context):
    context._default_context = context.DefaultContext(context._concrete_contexts["spawn"])


def _tell_children(spawn):
    prepare = spawn.get_preparation_data

    def get_preparation_data(name):
        frame = sys._getframe(1)
        while frame is not None and not frame.f_globals.get("__name__", "").startswith(PREFIX):
            frame = frame.f_back
        caller = "" if frame is None else frame.f_globals["__name__"]
        return {"crosstie": _Child(caller), **prepare(name)}

    spawn.get_preparation_data = get_preparation_data


class _Multiprocessing:
    """Makes ``multiprocessing`` start fresh interpreters, as a fork would copy the server's threads half-way,
    and lets those find a unit's modules.
    """

    changes = {"multiprocessing.context": _spawn_by_default, "multiprocessing.spawn": _tell_children}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        change = cls.changes.get(name)
        spec = change and importlib.machinery.PathFinder.find_spec(name, path)
        if not spec:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


def install(level):
    """Makes this interpreter the worker's."""
    logging.root.handlers[:] = [_Handler()]
    logging.root.setLevel(level)
    logging.raiseExceptions = False
    sys.stdout = sys.__stdout__ = _Stream("stdout", logging.INFO)
    sys.stderr = sys.__stderr__ = _Stream("stderr", logging.WARNING)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable
    sys.meta_path.insert(0, _Multiprocessing)
