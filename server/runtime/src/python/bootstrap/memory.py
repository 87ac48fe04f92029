"""Modules whose source is in memory: the SDK, this package and every unit.

Nothing is written to disk, so an upgrade of the server, a redeploy or a crash leaves nothing behind.
"""

import importlib.machinery
import importlib.util
import sys


class Source:
    """One module's file."""

    __slots__ = ("content", "filename", "is_package")

    def __init__(self, filename, content, is_package):
        self.filename = filename
        self.content = content
        self.is_package = is_package


class Loader:
    """Loads one module from its ``Source``; ``files`` holds what lies beside it, for package data."""

    __slots__ = ("builtins", "files", "source")

    def __init__(self, source, files, builtins=None):
        self.source = source
        self.files = files
        self.builtins = builtins

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        code = compile(self.source.content, self.source.filename, "exec", dont_inherit=True)
        if self.builtins is not None:
            module.__dict__["__builtins__"] = self.builtins
        exec(code, module.__dict__)

    def get_code(self, fullname):
        return compile(self.source.content, self.source.filename, "exec", dont_inherit=True)

    def get_source(self, fullname):
        return importlib.util.decode_source(self.source.content)

    def get_filename(self, fullname):
        return self.source.filename

    def is_package(self, fullname):
        return self.source.is_package

    def get_data(self, path):
        """Package data, as ``pkgutil.get_data`` asks for it."""
        content = self.files.get(str(path))
        if content is None:
            raise FileNotFoundError(2, "no such file in this unit", str(path))
        return content

    def get_resource_reader(self, fullname):
        if not self.source.is_package:
            return None
        from .resources import Reader

        return Reader(self.files, self.source.filename.rpartition("/")[0])


def spec_of(name, source, files, builtins=None):
    """The import specification of a module in memory."""
    loader = Loader(source, files, builtins)
    spec = importlib.machinery.ModuleSpec(
        name, loader, origin=source.filename, is_package=source.is_package
    )
    spec.has_location = True
    if source.is_package:
        spec.submodule_search_locations = [source.filename.rpartition("/")[0]]
    return spec


class Finder:
    """Finds the server's own packages."""

    def __init__(self, packages, sources):
        self.packages = packages
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        source = self.sources.get(name)
        return None if source is None else spec_of(name, source, {})


def install(packages):
    """Makes ``packages`` importable: package name → file name → content, flat."""
    sources = {}
    for package, files in packages.items():
        for file, content in files.items():
            stem = file[: -len(".py")]
            name = package if stem == "__init__" else f"{package}.{stem}"
            sources[name] = Source(f"<{package}>/{file}", content, stem == "__init__")
    sys.meta_path.insert(0, Finder(packages, sources))
