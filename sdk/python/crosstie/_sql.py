"""Databases: rows, results, sessions, and what can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._errors import BadGateway


class SqlError(BadGateway):
    """502: a database refused a statement."""

    origin = "upstream"

    #: What it is about: ``unique``, ``foreign_key``, ``not_null``, ``check``, ``conflict`` (another transaction
    #: won: the same may succeed when it is run again), ``locked``, ``permission``, ``value``, ``statement``,
    #: ``other``.
    reason = "other"
    #: SQLSTATE, where the database has one.
    sqlstate: str | None = None
    #: The database's own number for it.
    code: int = 0
    #: The constraint that was broken, where the database names it.
    constraint: str | None = None
    #: The database's message, for a log: callers are not told.
    detail: str | None = None

    def __str__(self) -> str:
        return self.detail or self.message


class SqlIntegrityError(SqlError):
    """502: a row breaks a rule of its table: it is there already, refers to one that is not, misses a value.

    Where that is the caller's doing, catch it and raise ``Conflict`` or ``BadRequest``.
    """


class NoRow(LookupError):
    """``one`` found none."""


class ManyRows(LookupError):
    """``one`` found more than one."""


class Row(dict[str, Any]):
    """A row: a dict of its columns, in their order. ``row.name`` and ``row[0]`` work as well."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the row has no column {name}") from None

    def __missing__(self, key: Any) -> Any:
        if isinstance(key, int):
            return tuple(self.values())[key]
        raise KeyError(key)

    @property
    def _mapping(self) -> Row:
        return self

    def _asdict(self) -> dict[str, Any]:
        return dict(self)


class Result(list[Row]):
    """The rows a statement gave, and what else it came to."""

    #: The names of the columns.
    columns: list[str]
    #: How many rows it changed or gave.
    rowcount: int
    #: The number the database made for the last row inserted, where it tells without being asked (MariaDB,
    #: SQLite; on PostgreSQL: ``INSERT … RETURNING id``).
    lastrowid: int | None

    def __init__(
        self, rows: list[Row] = [], columns: list[str] = [], rowcount: int = 0, lastrowid: int | None = None
    ) -> None:
        super().__init__(rows)
        self.columns = columns
        self.rowcount = rowcount
        self.lastrowid = lastrowid

    def one(self) -> Row:
        """The only row; raises ``NoRow`` or ``ManyRows`` where there is none or more than one."""
        row = self.one_or_none()
        if row is None:
            raise NoRow("the statement gave no row")
        return row

    def one_or_none(self) -> Row | None:
        """The only row or ``None``; raises ``ManyRows`` where there is more than one."""
        if len(self) > 1:
            raise ManyRows(f"the statement gave {len(self)} rows where one was expected")
        return self[0] if self else None

    def first(self) -> Row | None:
        """The first row or ``None``."""
        return self[0] if self else None

    def scalar(self) -> Any:
        """The first column of the first row, or ``None``."""
        return self[0][0] if self else None

    def scalars(self) -> list[Any]:
        """The first column of every row."""
        return [row[0] for row in self]

    def keys(self) -> list[str]:
        """The names of the columns."""
        return self.columns

    def all(self) -> Result:
        """All rows."""
        return self

    def fetchall(self) -> Result:
        """All rows."""
        return self

    def fetchone(self) -> Row | None:
        """The next row or ``None``."""
        return next(self._rest, None)

    def mappings(self) -> Result:
        """All rows, which are mappings already."""
        return self

    @property
    def _rest(self) -> Iterator[Row]:
        rest = self.__dict__.get("_iterator")
        if rest is None:
            rest = self.__dict__["_iterator"] = iter(self)
        return rest


class Session:
    """A transaction that begins by itself and ends with ``commit`` or ``rollback``, after which another begins.

    What was not committed when the session is closed is undone, as leaving its ``with`` block does.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transaction: Any = None

    def execute(self, statement: Any, params: Any = None, **more: Any) -> Result:
        """Runs a statement in the session's transaction."""
        if self._transaction is None:
            self._transaction = self._connection.transaction().begin()
        return self._transaction.execute(statement, params, **more)

    def scalar(self, statement: Any, params: Any = None, **more: Any) -> Any:
        """The first column of the first row that a statement gives, or ``None``."""
        return self.execute(statement, params, **more).scalar()

    def scalars(self, statement: Any, params: Any = None, **more: Any) -> list[Any]:
        """The first column of every row that a statement gives."""
        return self.execute(statement, params, **more).scalars()

    def commit(self) -> None:
        """Keeps what was changed."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.commit()

    def rollback(self) -> None:
        """Undoes what was changed."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.rollback()

    def close(self) -> None:
        """Undoes what was not committed."""
        self.rollback()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
