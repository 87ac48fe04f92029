"""Package data of units in memory, for ``importlib.resources``."""

import io
from importlib.resources.abc import Traversable, TraversableResources


class Reader(TraversableResources):
    """The files of one package."""

    def __init__(self, files, directory):
        self._files = files
        self._directory = directory

    def files(self):
        return Entry(self._files, self._directory)


class Entry(Traversable):
    """A file or directory of a unit."""

    def __init__(self, files, path):
        self._files = files
        self._path = path

    @property
    def name(self):
        return self._path.rpartition("/")[2]

    def iterdir(self):
        prefix = f"{self._path}/"
        names = {path[len(prefix) :].partition("/")[0] for path in self._files if path.startswith(prefix)}
        return iter([self.joinpath(name) for name in sorted(names)])

    def is_file(self):
        return self._path in self._files

    def is_dir(self):
        prefix = f"{self._path}/"
        return any(path.startswith(prefix) for path in self._files)

    def joinpath(self, *parts):
        return Entry(self._files, "/".join([self._path, *map(str, parts)]))

    def __truediv__(self, part):
        return self.joinpath(part)

    def read_bytes(self):
        content = self._files.get(self._path)
        if content is None:
            raise FileNotFoundError(2, "no such file in this unit", self._path)
        return bytes(content)

    def read_text(self, encoding=None):
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode="r", *args, **kwargs):
        stream = io.BytesIO(self.read_bytes())
        return stream if "b" in mode else io.TextIOWrapper(stream, *args, **{"encoding": "utf-8", **kwargs})
