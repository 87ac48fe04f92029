"""``self.config``: the server's user configuration, read-only, by attribute or key."""

from collections.abc import Mapping


class Config(Mapping):
    """One level of the configuration."""

    __slots__ = ("_values",)

    def __init__(self, values):
        object.__setattr__(self, "_values", {name: _frozen(value) for name, value in values.items()})

    def __getitem__(self, name):
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def __getattr__(self, name):
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the configuration has no {name!r} here") from None

    def __setattr__(self, name, value):
        raise AttributeError("the configuration is read-only")

    def __repr__(self):
        return f"Config({self._values!r})"


def _frozen(value):
    if isinstance(value, dict):
        return Config(value)
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value
