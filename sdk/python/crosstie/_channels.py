"""Channels declared beside their service.

A channel declared here is a read-only definition named ``SERVICE:KIND:PATH``; an explicit definition of that
name overrides it. Options are those of the channel's definition, by the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict


class RateLimit(TypedDict, total=False):
    """``{"limit": 10, "per": "minute", "by": "address"}``."""

    limit: int
    per: Literal["second", "minute", "hour", "day"]
    by: Literal["all", "address"]


class Channel:
    """One declared entrance. Made by :func:`rest`, :func:`http`, :func:`jsonrpc`, :func:`soap` and :func:`amqp`."""

    __slots__ = ("options", "path", "type")

    def __init__(self, type: str, path: str, options: Mapping[str, Any]) -> None:
        if not isinstance(path, str):
            raise TypeError(f"a channel's path is text, not {path!r}")
        self.type = type
        self.path = path
        self.options = {name: value for name, value in options.items() if value is not None}

    def __repr__(self) -> str:
        return f"{self.type}({self.path!r}, {self.options!r})"


def _methods(methods: str | Iterable[str]) -> list[str] | None:
    """``"GET"``, ``"GET, POST"`` and ``["GET", "POST"]`` alike; none for all the service handles."""
    if isinstance(methods, str):
        methods = [name for name in methods.replace(",", " ").split() if name != "*"]
    found = [str(name).upper() for name in methods]
    return found or None


def _shared(
    security: str | None,
    active: bool | None,
    deadline_ms: int | None,
    max_body_bytes: int | None,
    max_concurrency: int | None,
    rate_limit: RateLimit | Iterable[RateLimit] | None,
    cors: Mapping[str, Any] | None,
    allow_from: Iterable[str] | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    if isinstance(rate_limit, Mapping):
        rate_limit = [rate_limit]
    return {
        "security": security,
        "active": active,
        "deadline_ms": deadline_ms,
        "max_body_bytes": max_body_bytes,
        "max_concurrency": max_concurrency,
        "rate_limit": None if rate_limit is None else [dict(rule) for rule in rate_limit],
        "cors": None if cors is None else dict(cors),
        "allow_from": None if allow_from is None else list(allow_from),
        **more,
    }


def rest(
    methods: str | Iterable[str],
    path: str | None = None,
    /,
    *,
    security: str | None = None,
    data_format: Literal["json", "xml", "form", "raw"] | None = None,
    openapi: bool | None = None,
    active: bool | None = None,
    deadline_ms: int | None = None,
    max_body_bytes: int | None = None,
    max_concurrency: int | None = None,
    rate_limit: RateLimit | Iterable[RateLimit] | None = None,
    cors: Mapping[str, Any] | None = None,
    allow_from: Iterable[str] | None = None,
    **more: Any,
) -> Channel:
    """REST: ``rest("GET", "/customers/{id:int}", security="crm.clients")``; ``rest("/path")`` answers every
    method the service handles.
    """
    if path is None:
        if not isinstance(methods, str):
            raise TypeError("rest() needs a path")
        methods, path = "", methods
    options = _shared(
        security, active, deadline_ms, max_body_bytes, max_concurrency, rate_limit, cors, allow_from, more
    )
    options.update(methods=_methods(methods), data_format=data_format, openapi=openapi)
    return Channel("rest", path, options)


def http(
    path: str,
    /,
    *,
    methods: str | Iterable[str] = (),
    security: str | None = None,
    active: bool | None = None,
    deadline_ms: int | None = None,
    max_body_bytes: int | None = None,
    max_concurrency: int | None = None,
    rate_limit: RateLimit | Iterable[RateLimit] | None = None,
    cors: Mapping[str, Any] | None = None,
    allow_from: Iterable[str] | None = None,
    **more: Any,
) -> Channel:
    """Plain HTTP: the body reaches the service as bytes, whatever its type."""
    options = _shared(
        security, active, deadline_ms, max_body_bytes, max_concurrency, rate_limit, cors, allow_from, more
    )
    options.update(methods=_methods(methods))
    return Channel("http", path, options)


def jsonrpc(
    path: str,
    /,
    *,
    method: str | None = None,
    max_batch: int | None = None,
    openrpc: bool | None = None,
    security: str | None = None,
    active: bool | None = None,
    deadline_ms: int | None = None,
    max_body_bytes: int | None = None,
    max_concurrency: int | None = None,
    rate_limit: RateLimit | Iterable[RateLimit] | None = None,
    cors: Mapping[str, Any] | None = None,
    allow_from: Iterable[str] | None = None,
    **more: Any,
) -> Channel:
    """JSON-RPC 2.0: services that declare the same path share it; ``method`` is the service's name unless
    given.
    """
    options = _shared(
        security, active, deadline_ms, max_body_bytes, max_concurrency, rate_limit, cors, allow_from, more
    )
    options.update(method=method, max_batch=max_batch, openrpc=openrpc)
    return Channel("jsonrpc", path, options)


def soap(
    path: str,
    /,
    *,
    operation: str | None = None,
    one_way: bool | None = None,
    wsdl: str | None = None,
    service_name: str | None = None,
    namespace: str | None = None,
    style: Literal["document", "rpc"] | None = None,
    versions: Iterable[Literal["1.1", "1.2"]] | None = None,
    mtom: Literal["as_asked", "always", "never"] | None = None,
    mtom_from_bytes: int | None = None,
    max_parts: int | None = None,
    understands: Iterable[str] | None = None,
    describe: bool | None = None,
    security: str | None = None,
    active: bool | None = None,
    deadline_ms: int | None = None,
    max_body_bytes: int | None = None,
    max_concurrency: int | None = None,
    rate_limit: RateLimit | Iterable[RateLimit] | None = None,
    cors: Mapping[str, Any] | None = None,
    allow_from: Iterable[str] | None = None,
    **more: Any,
) -> Channel:
    """SOAP 1.1 and 1.2: services that declare the same path are its operations; ``operation`` is the name of the
    service's class unless given. ``one_way=True``: nobody waits for an answer.
    """
    options = _shared(
        security, active, deadline_ms, max_body_bytes, max_concurrency, rate_limit, cors, allow_from, more
    )
    options.update(
        operation=operation,
        one_way=one_way,
        wsdl=wsdl,
        service_name=service_name,
        namespace=namespace,
        style=style,
        versions=None if versions is None else list(versions),
        mtom=mtom,
        mtom_from_bytes=mtom_from_bytes,
        max_parts=max_parts,
        understands=None if understands is None else list(understands),
        describe=describe,
    )
    return Channel("soap", path, options)


def amqp(
    queue: str,
    /,
    *,
    connection: str,
    missing_queue: Literal["make_classic", "make_quorum", "wait"] | None = None,
    exchange: str | None = None,
    exchange_type: Literal["direct", "topic", "fanout", "headers"] | None = None,
    routing_keys: str | Iterable[str] = (),
    prefetch: int | None = None,
    consumers: int | None = None,
    consumers_per: Literal["server", "cluster"] | None = None,
    data_format: Literal["json", "xml", "form", "raw"] | None = None,
    deadline_ms: int | None = None,
    max_body_bytes: int | None = None,
    retry: Mapping[str, int] | None = None,
    dead_letter: Mapping[str, str] | None = None,
    max_redeliveries: int | None = None,
    idempotency: Mapping[str, Any] | str | None = None,
    reply: bool | None = None,
    active: bool | None = None,
    **more: Any,
) -> Channel:
    """AMQP 0-9-1: the messages of a queue; ``connection`` is the outgoing of type ``amqp`` whose broker it is.
    ``idempotency="message_id"`` is short for ``{"key": "message_id"}``.
    """
    keys = [routing_keys] if isinstance(routing_keys, str) else list(routing_keys)
    if isinstance(idempotency, str):
        idempotency = {"key": idempotency}
    options: dict[str, Any] = {
        "connection": connection,
        "missing_queue": missing_queue,
        "exchange": exchange,
        "exchange_type": exchange_type,
        "routing_keys": keys or None,
        "prefetch": prefetch,
        "consumers": consumers,
        "consumers_per": consumers_per,
        "data_format": data_format,
        "deadline_ms": deadline_ms,
        "max_body_bytes": max_body_bytes,
        "retry": None if retry is None else dict(retry),
        "dead_letter": None if dead_letter is None else dict(dead_letter),
        "max_redeliveries": max_redeliveries,
        "idempotency": None if idempotency is None else dict(idempotency),
        "reply": reply,
        "active": active,
        **more,
    }
    return Channel("amqp", queue, options)
