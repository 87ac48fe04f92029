"""Private module namespaces: one per loaded unit, one per version of the shared library.

A unit's modules are registered as ``_ctN.NAME``, with N new for every load, so two units (or two versions of
one) never see each other's modules whatever they are called. Code of a unit still writes ``import NAME``: its
modules have builtins of their own, whose ``__import__`` looks into the namespace and the library first.
``importlib.import_module`` does the same for callers inside a namespace.
"""

import builtins
import importlib
import linecache
import re
import sys
import types

from .memory import Source, spec_of

PREFIX = "_ct"
_PRIVATE = re.compile(r"\b_ct\d+(?:\.|\b)")
_real_import = builtins.__import__
_real_import_module = importlib.import_module
_namespaces = {}


def shown(text):
    """``text`` without what the server puts before the names of private modules."""
    return _PRIVATE.sub("", text)


class Namespace:
    """The modules of one loaded artifact."""

    def __init__(self, serial, files, directory, library):
        """``files`` maps file names as people see them to contents; ``directory`` is the part of those names
        that is no part of a module's name.
        """
        self.serial = serial
        self.root = f"{PREFIX}{serial}"
        self.files = files
        self.directory = directory
        self.library = library
        self.sources = dict(_sources(files, directory))
        self.tops = {name.partition(".")[0] for name in self.sources}
        self.builtins = {**vars(builtins), "__import__": _private_import(self)}
        root = types.ModuleType(self.root)
        root.__path__ = []
        sys.modules[self.root] = root
        _namespaces[self.root] = self
        for filename in files:
            linecache.cache.pop(filename, None)

    def owner_of(self, top):
        """The namespace that has the top-level module ``top``."""
        if top in self.tops:
            return self
        if self.library is not None and top in self.library.tops:
            return self.library
        return None

    def load(self, name):
        return _real_import_module(f"{self.root}.{name}")

    def modules(self):
        """The modules that are loaded, by their name inside the unit."""
        start = len(self.root) + 1
        return {
            name[start:]: module
            for name, module in list(sys.modules.items())
            if name.startswith(f"{self.root}.") and module is not None
        }

    def find_spec(self, name):
        source = self.sources.get(name[len(self.root) + 1 :])
        return None if source is None else spec_of(name, source, self.files, self.builtins)

    def unload(self):
        """Removes every trace: what still runs of this code will not get far, and its memory comes back."""
        _namespaces.pop(self.root, None)
        inside = f"{self.root}."
        names = [name for name in sys.modules if name == self.root or name.startswith(inside)]
        modules = [sys.modules.pop(name) for name in names]
        for filename in self.files:
            linecache.cache.pop(filename, None)
        _forget_loggers(inside)
        _forget_types()
        for module in modules:
            if isinstance(module, types.ModuleType):
                module.__dict__.clear()
        self.builtins.clear()
        self.sources.clear()
        self.files.clear()
        self.library = None


def _sources(files, directory):
    """The modules among ``files``: a directory is a package, with or without ``__init__.py``."""
    for filename, content in files.items():
        if not filename.endswith(".py"):
            continue
        parts = filename[len(directory) : -len(".py")].split("/")
        for count in range(1, len(parts)):
            initial = f"{directory}{'/'.join(parts[:count])}/__init__.py"
            if initial not in files:
                yield ".".join(parts[:count]), Source(initial, b"", True)
        if parts[-1] != "__init__":
            yield ".".join(parts), Source(filename, content, False)
        elif len(parts) > 1:
            yield ".".join(parts[:-1]), Source(filename, content, True)


def _private_import(namespace):
    def __import__(name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0:
            top = name.partition(".")[0]
            owner = namespace.owner_of(top)
            if owner is not None:
                full = f"{owner.root}.{name}"
                if fromlist:
                    return _real_import(full, globals, locals, fromlist, 0)
                _real_import_module(full)
                return sys.modules[f"{owner.root}.{top}"]
        return _real_import(name, globals, locals, fromlist, level)

    return __import__


def _import_module(name, package=None):
    """``importlib.import_module``, which sees the private modules of the unit that calls it."""
    if not name.startswith("."):
        namespace = _calling_namespace()
        owner = namespace and namespace.owner_of(name.partition(".")[0])
        if owner:
            return _real_import_module(f"{owner.root}.{name}")
    return _real_import_module(name, package)


def _calling_namespace():
    caller = sys._getframe(2).f_globals.get("__name__", "")
    return _namespaces.get(caller.partition(".")[0]) if isinstance(caller, str) else None


class _Finder:
    """Finds the modules of every namespace by their full name."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if not name.startswith(PREFIX):
            return None
        namespace = _namespaces.get(name.partition(".")[0])
        return None if namespace is None else namespace.find_spec(name)


def _forget_loggers(inside):
    """``logging`` keeps every logger that ever had a name."""
    logging = sys.modules.get("logging")
    if logging is None:
        return
    loggers = logging.Logger.manager.loggerDict
    for name in [name for name in loggers if name.startswith(inside) or name == inside[:-1]]:
        logger = loggers.pop(name)
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()


def _forget_types():
    """``typing`` remembers the classes that generic types were made of."""
    typing = sys.modules.get("typing")
    for cleanup in getattr(typing, "_cleanups", ()):
        cleanup()


def packed(caller):
    """The namespace that ``caller`` belongs to, with its library, so that another process can
    :func:`restore` it; every namespace when the caller belongs to none.
    """
    namespace = _namespaces.get(caller.partition(".")[0])
    chosen = list(_namespaces.values()) if namespace is None else [namespace.library, namespace]
    return [
        (one.serial, one.files, one.directory, one.library and one.library.serial)
        for one in sorted(filter(None, chosen), key=lambda one: one.library is not None)
    ]


def restore(packed):
    """Makes the modules of another process importable by the names they have there."""
    for serial, files, directory, library in packed:
        Namespace(serial, files, directory, _namespaces.get(f"{PREFIX}{library}"))


def install():
    sys.meta_path.insert(0, _Finder)
    importlib.import_module = _import_module
