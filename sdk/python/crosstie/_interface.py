"""What ``self`` offers inside a service, as types.

Inside a server these are implemented by the server itself; the classes here tell editors and type checkers
what is there, and are plain objects in unit tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from ._service import Service
    from ._sql import Row, Session


class Certificate:
    """The certificate a caller showed, verified."""

    #: Its subject (RFC 4514), such as ``CN=shop,O=Acme``.
    subject: str
    #: Who issued it (RFC 4514).
    issuer: str
    #: Its other names: ``dns:…``, ``email:…``, ``uri:…``, ``ip:…``.
    sans: list[str]
    #: Its serial number in hexadecimal.
    serial: str
    #: The SHA-256 of all of it in hexadecimal.
    fingerprint: str
    #: From when on it is valid.
    not_before: datetime
    #: Until when it is valid.
    not_after: datetime


class Security:
    """Who the caller is, once its credentials were accepted."""

    #: The security definition that accepted them; of a group, the member.
    name: str
    #: ``basic_auth``, ``api_key``, ``client_certificate``, ``jwt`` …
    type: str
    #: The user name; a token's subject; a certificate's common name.
    username: str | None
    #: What a token says of its bearer.
    claims: dict[str, Any]
    #: What a token allows.
    scopes: list[str]
    #: The client certificate, where one is demanded.
    certificate: Certificate | None


class Channel:
    """The entrance a message came through."""

    #: The channel's name; ``invoke`` for a call from another service.
    name: str
    #: ``rest``, ``http``, ``jsonrpc``, ``soap``, ``invoke`` …
    type: str
    #: Who the caller is; ``None`` where no credentials were asked for.
    security: Security | None


class Headers(Mapping[str, str]):
    """Header fields; names are case-insensitive, a repeated field is joined with commas."""

    def get_all(self, name: str) -> list[str]:
        """Every value of a repeated field."""
        raise NotImplementedError


class Part:
    """One part of a ``multipart/form-data`` body."""

    name: str
    #: The file's name as the client gave it; never trust it as a path.
    file_name: str | None
    content_type: str | None
    content: bytes
    #: ``content`` as UTF-8 text.
    text: str


class Http:
    """HTTP's side of a request. Without HTTP, as in a call from another service, all is empty."""

    method: str
    path: str
    #: Path parameters, as text.
    params: dict[str, str]
    #: Query parameters; a repeated one is a list.
    query: dict[str, str | list[str]]
    #: The same as ``query``.
    GET: dict[str, str | list[str]]
    #: Form fields of the body; a repeated one is a list, an uploaded file a :class:`Part`.
    form: dict[str, Any]
    #: The same as ``form``.
    POST: dict[str, Any]
    headers: Headers
    user_agent: str
    #: The client's address.
    client: str
    #: Whether the client's hop was encrypted.
    secure: bool

    def get_form_data(self) -> dict[str, Any]:
        """The same as ``form``."""
        raise NotImplementedError


class SoapHeader:
    """A header block of a SOAP request."""

    name: str
    namespace: str
    #: Whether whoever receives it has to understand it.
    must_understand: bool
    #: What it holds: text, or a dict of its elements and attributes.
    value: Any
    #: The block as it came, a document of its own.
    xml: str


class Attachment:
    """What came beside a SOAP envelope."""

    #: What the envelope refers to it by.
    content_id: str
    content_type: str
    content: bytes


class SoapRequest:
    """SOAP's side of a request."""

    #: ``1.1`` or ``1.2``.
    version: str
    #: The operation, as the description calls it.
    operation: str
    #: Its action: of WS-Addressing, or of the transport.
    action: str | None
    #: Its WS-Addressing headers, where it has some.
    message_id: str | None
    to: str | None
    reply_to: str | None
    relates_to: str | None
    #: The other header blocks, without those that carry credentials.
    headers: list[SoapHeader]
    attachments: list[Attachment]

    def header(self, name: str, namespace: str | None = None) -> SoapHeader | None:
        """The first header block of that name."""
        raise NotImplementedError


class SoapResponse:
    """What goes around the body of a SOAP answer."""

    def add_header(self, name: str, value: Any, /, *, namespace: str, must_understand: bool = False) -> None:
        """Adds a header block: text, a dict of elements (``@name`` for an attribute), or ``None``."""
        raise NotImplementedError

    def attach(
        self, content: bytes, content_type: str = "application/octet-stream", *, content_id: str | None = None
    ) -> str:
        """Puts something beside the envelope; gives its content id."""
        raise NotImplementedError


class Request:
    """One request."""

    #: The decoded body: dict, list, text, number, bytes, or ``None`` without one.
    payload: Any
    #: The declared input, filled from path, query and body in this order of precedence; without a declared
    #: input, a dict of the same, or the payload where that is no object.
    input: Any
    #: The body as it came.
    raw: bytes
    #: The same as ``raw``.
    raw_request: bytes
    #: The body as text, decoded as UTF-8.
    text: str
    headers: Headers
    http: Http
    #: Short form of ``http.params``.
    params: dict[str, str]
    cid: str
    security: Security | None
    #: SOAP's side of the request; ``None`` where it is no SOAP message.
    soap: SoapRequest | None
    #: AMQP's side of the message; ``None`` where no broker brought it.
    amqp: AmqpMessage | None


class AmqpMessage:
    """AMQP's side of a message."""

    queue: str
    #: Where it was published to, at first.
    exchange: str
    routing_key: str
    #: Which attempt this is, from 1.
    attempt: int
    #: How often it came again because nobody acknowledged it.
    redeliveries: int
    #: Whether it did.
    redelivered: bool
    headers: dict[str, Any]
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    content_type: str | None
    content_encoding: str | None
    persistent: bool
    priority: int | None
    #: In milliseconds, as text.
    expiration: str | None
    timestamp: datetime | None
    type: str | None
    user_id: str | None
    app_id: str | None


class Response:
    """What the caller gets."""

    #: dict, list, text, number, bytes, a model, or a generator, which is sent piece by piece. Until it is
    #: set, attributes and keys may be assigned on it one by one.
    payload: Any
    #: The HTTP status; chosen by the channel while it is ``None``.
    status_code: int | None
    #: Header fields; assigning a list sends a field several times.
    headers: dict[str, Any]
    content_type: str | None
    #: What goes around the body of a SOAP answer; other channels leave it out.
    soap: SoapResponse


class Logger:
    """Writes to the server's log, under the cid."""

    def debug(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def info(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def warning(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def warn(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def error(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def exception(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def critical(self, message: Any, *args: Any, **kwargs: Any) -> None: ...
    def log(self, level: int, message: Any, *args: Any, **kwargs: Any) -> None: ...

    def isEnabledFor(self, level: int) -> bool:
        raise NotImplementedError


class Dictionaries:
    """``self.dictionary["NAME"]``: read-only lookup tables, which are definitions."""

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        raise NotImplementedError


class Data:
    """``self.data``: values that services share, in the ODB. In ``async def`` services every call is
    awaited.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """The value under ``key``."""
        raise NotImplementedError

    def entry(self, key: str) -> Any:
        """``(value, version)``, or ``None`` when there is none."""
        raise NotImplementedError

    def set(self, key: str, value: Any, *, ttl: float | None = None, expected: int | None = None) -> Any:
        """Writes ``value``, for ``ttl`` seconds if given, and returns its version. With ``expected``, only
        over that version (0: only where there is none); otherwise ``Conflict`` is raised.
        """
        raise NotImplementedError

    def cas(self, key: str, value: Any, expected: int, *, ttl: float | None = None) -> Any:
        """Compare-and-set: whether ``value`` was written over version ``expected``."""
        raise NotImplementedError

    def delete(self, key: str) -> Any:
        """Removes ``key``; whether it was there."""
        raise NotImplementedError

    def keys(self, prefix: str = "", limit: int = 1000) -> Any:
        """The keys that start with ``prefix``, sorted."""
        raise NotImplementedError


class HttpResponse:
    """What another system answered. Iterating gives the body piece by piece, as it comes where the call was
    made with ``stream=True``. False in a condition when the status is 400 or more.
    """

    status_code: int
    #: The usual words for the status.
    reason: str
    #: Whether the status is below 400.
    ok: bool
    headers: Headers
    #: The body by its media type: decoded JSON, text or bytes; ``None`` without one.
    data: Any
    #: The body as text, in the charset the answer names.
    text: str
    content: bytes
    #: The same as ``content``.
    raw: bytes

    def json(self) -> Any:
        """The body decoded as JSON, whatever its type."""
        raise NotImplementedError

    def raise_for_status(self) -> None:
        """Raises ``UpstreamError`` when the status is 400 or more."""
        raise NotImplementedError

    def read(self) -> Any:
        """Reads the rest of a stream and gives it; in ``async def`` services awaited."""
        raise NotImplementedError

    def close(self) -> None:
        """Cuts off a stream that is not read to its end; leaving a ``with`` block does as well."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError

    def __enter__(self) -> HttpResponse:
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> HttpResponse:
        raise NotImplementedError

    async def __aexit__(self, *error: object) -> None:
        raise NotImplementedError


class HttpConnection:
    """An outgoing of type ``rest`` or ``http``. In ``async def`` services every call is awaited.

    A correlation id may come first, as in ``get(self.cid)``; it goes along with every call anyway. Arguments:

    - ``params``: dict; those the path has a place for fill it, the others go into the query
    - ``query``: dict of query parameters; a list repeats one
    - ``headers``: dict of header fields
    - ``data``: what is sent: dict, list or model in the outgoing's ``data_format``; text, bytes; a file or an
      iterator of text or bytes, which is sent as it comes
    - ``json``: what is sent as JSON, whatever the ``data_format``
    - ``files``: dict of fields to content, ``(name, content)`` or ``(name, content, media type)``
    - ``stream``: whether the answer's body is read by the service, piece by piece
    - ``timeout``: seconds this call may take, where that is less than the definition says
    """

    name: str
    #: The same object.
    conn: HttpConnection

    def get(self, *args: Any, **more: Any) -> Any:
        """``get([cid,] [params,] …)``"""
        raise NotImplementedError

    def head(self, *args: Any, **more: Any) -> Any:
        """``head([cid,] [params,] …)``"""
        raise NotImplementedError

    def options(self, *args: Any, **more: Any) -> Any:
        """``options([cid,] [params,] …)``"""
        raise NotImplementedError

    def post(self, *args: Any, **more: Any) -> Any:
        """``post([cid,] [data,] [params,] …)``"""
        raise NotImplementedError

    def put(self, *args: Any, **more: Any) -> Any:
        """``put([cid,] [data,] [params,] …)``"""
        raise NotImplementedError

    def patch(self, *args: Any, **more: Any) -> Any:
        """``patch([cid,] [data,] [params,] …)``"""
        raise NotImplementedError

    def delete(self, *args: Any, **more: Any) -> Any:
        """``delete([cid,] [data,] [params,] …)``"""
        raise NotImplementedError

    def send(self, method: str, *args: Any, **more: Any) -> Any:
        """``send(method, [cid,] [data,] [params,] …)``"""
        raise NotImplementedError

    def ping(self, *args: Any) -> Any:
        """Asks for a sign of life and gives what it said."""
        raise NotImplementedError


class HttpConnections:
    """Outgoings by name."""

    def __getitem__(self, name: str) -> HttpConnection:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        raise NotImplementedError

    def get(self, name: str) -> HttpConnection | None:
        raise NotImplementedError


class SoapPart:
    """What stands beside an envelope."""

    #: What the envelope refers to it by, without brackets.
    content_id: str
    content_type: str
    content: bytes


class SoapMessage:
    """The whole answer of an operation."""

    #: What the body holds: the results by name. Also what ``call`` gives without ``whole``.
    data: Any
    #: What the header blocks hold, by name; those of WS-Addressing and WS-Security left out.
    headers: dict[str, Any]
    #: The header blocks as XML, in their order.
    header_blocks: list[str]
    #: What came beside the envelope; binary values among it are in ``data`` as well.
    attachments: list[SoapPart]
    #: The status of HTTP.
    status_code: int
    #: Header fields of HTTP.
    http_headers: Headers


class SoapConnection:
    """An outgoing of type ``soap``.

    Messages are made and answers read by the WSDL: dicts of parameters and results, lists for what repeats, ``None``
    for nil, and str, int, float, bool, ``Decimal``, ``datetime``, ``date``, ``time`` and bytes by their types. What
    does not fit is a ``ModelError`` that names each place; a fault is a ``SoapFault``.
    """

    name: str
    #: The same object.
    conn: SoapConnection
    #: The names of the operations.
    operations: list[str]

    def call(
        self,
        operation: str,
        data: Any = None,
        *,
        headers: Mapping[str, Any] | str | Sequence[str] | None = None,
        http_headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        whole: bool = False,
    ) -> Any:
        """Calls an operation; gives its results, or all of the answer as a ``SoapMessage``."""
        raise NotImplementedError

    def send(
        self,
        envelope: str | bytes,
        *,
        action: str | None = None,
        http_headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Sends an envelope as it is; gives an ``HttpResponse``, whatever it says."""
        raise NotImplementedError

    def ping(self, *args: Any) -> Any:
        """Asks for a sign of life; gives what the other system said."""
        raise NotImplementedError


class SoapConnections:
    """Outgoings of type ``soap`` by name."""

    def __getitem__(self, name: str) -> SoapConnection:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        raise NotImplementedError

    def get(self, name: str) -> SoapConnection | None:
        """The outgoing of that name, or ``None``."""
        raise NotImplementedError


class SqlRows:
    """Rows as they come: iterated with ``for``, in ``async def`` services with ``async for``. The database waits for
    whoever reads. Leaving the loop, or a ``with`` block around it, ends the statement.
    """

    def __iter__(self) -> Iterator[Row]:
        raise NotImplementedError

    def __next__(self) -> Row:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[Row]:
        raise NotImplementedError

    def close(self) -> None:
        """Ends the statement, if it was not read to its end."""
        raise NotImplementedError

    def __enter__(self) -> SqlRows:
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> SqlRows:
        raise NotImplementedError

    async def __aexit__(self, *error: object) -> None:
        raise NotImplementedError


class SqlStatements:
    """Statements, with parameters as ``:name``. In ``async def`` services every call but ``stream`` is awaited.

    Arguments:

    - ``params``: dict of names and values; a list of them runs the statement once for each, all or none
    - ``types``: dict of columns and what they are, where the database does not say enough: ``bool``, ``int``,
      ``float``, ``decimal``, ``text``, ``bytes``, ``date``, ``time``, ``timestamp``, ``interval``, ``uuid``, ``json``
    - ``timeout``: seconds the statement may take, where that is less than the definition says
    """

    def one(self, statement: str, params: Any = None, *, types: Any = None, timeout: float | None = None) -> Any:
        """The only row; raises ``NoRow`` or ``ManyRows`` where there is none or more than one."""
        raise NotImplementedError

    def one_or_none(
        self, statement: str, params: Any = None, *, types: Any = None, timeout: float | None = None
    ) -> Any:
        """The only row or ``None``; raises ``ManyRows`` where there is more than one."""
        raise NotImplementedError

    def all(self, statement: str, params: Any = None, *, types: Any = None, timeout: float | None = None) -> Any:
        """All rows: a ``Result``, which is a list."""
        raise NotImplementedError

    def execute(self, statement: str, params: Any = None, *, types: Any = None, timeout: float | None = None) -> Any:
        """The same; ``rowcount`` and ``lastrowid`` of the ``Result`` tell what a statement without rows did."""
        raise NotImplementedError

    def stream(
        self, statement: str, params: Any = None, *, types: Any = None, timeout: float | None = None
    ) -> SqlRows:
        """The rows as they come, any number of them."""
        raise NotImplementedError


class SqlTransaction(SqlStatements):
    """Statements that belong together: committed at the end of a ``with`` block, in ``async def`` services of an
    ``async with`` block, and undone where an exception leaves it.
    """

    def begin(self) -> Any:
        """Begins it without a block, and gives it; ``commit`` or ``rollback`` must follow."""
        raise NotImplementedError

    def commit(self) -> Any:
        """Keeps what was changed, before the block ends."""
        raise NotImplementedError

    def rollback(self) -> Any:
        """Undoes what was changed, before the block ends."""
        raise NotImplementedError

    def __enter__(self) -> SqlTransaction:
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> SqlTransaction:
        raise NotImplementedError

    async def __aexit__(self, *error: object) -> None:
        raise NotImplementedError


class SqlConnection(SqlStatements):
    """An outgoing of type ``sql``. Each statement is a transaction of its own."""

    name: str
    #: The same object.
    conn: SqlConnection

    def transaction(self, *, isolation: str | None = None, read_only: bool = False) -> SqlTransaction:
        """A transaction for a ``with`` block; ``isolation`` is ``read committed``, ``repeatable read`` or
        ``serializable``.
        """
        raise NotImplementedError

    def session(self) -> Session:
        """A session for services brought along: ``execute``, ``commit``, ``rollback``, ``close``. Not in
        ``async def`` services.
        """
        raise NotImplementedError

    def ping(self, *args: Any) -> Any:
        """Asks the database for a sign of life; gives what it said."""
        raise NotImplementedError


class SqlConnections:
    """Databases by name."""

    def __getitem__(self, name: str) -> SqlConnection:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        raise NotImplementedError

    def get(self, name: str) -> SqlConnection | None:
        raise NotImplementedError


class AmqpConnection:
    """An outgoing of type ``amqp``: a broker."""

    name: str
    #: The same object.
    conn: AmqpConnection

    def publish(
        self,
        msg: Any,
        exchange: str | None = None,
        routing_key: str | None = None,
        *,
        properties: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        persistent: bool = True,
        mandatory: bool = True,
        priority: int | None = None,
        expiration: float | timedelta | str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        timestamp: datetime | int | None = None,
        type: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Publishes text, bytes, or anything else as JSON, and returns the message-id once the broker has taken the
        message over. With ``mandatory`` a message that no queue takes is an error. ``expiration`` is in seconds;
        as text, in milliseconds. ``properties`` holds the same by name.
        """
        raise NotImplementedError

    def ping(self, *args: Any) -> Any:
        """Asks for a sign of life; gives what the broker said."""
        raise NotImplementedError


class AmqpConnections:
    """Outgoings of type ``amqp`` by name."""

    def __getitem__(self, name: str) -> AmqpConnection:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        raise NotImplementedError

    def get(self, name: str) -> AmqpConnection | None:
        """The outgoing of that name, or ``None``."""
        raise NotImplementedError

    def publish(self, name: str, msg: Any, *args: Any, **more: Any) -> Any:
        """The same as ``self.out.amqp[name].publish(msg, …)``."""
        raise NotImplementedError


class Out:
    """``self.out``: connections to other systems, which are definitions of kind ``outgoing``."""

    rest: HttpConnections
    http: HttpConnections
    soap: SoapConnections
    sql: SqlConnections
    amqp: AmqpConnections


class Stylesheet:
    """One stylesheet of ``self.transform``."""

    name: str

    def __call__(
        self,
        xml: str | bytes,
        params: Mapping[str, str | float | bool] | None = None,
        /,
        **more: str | float | bool,
    ) -> Any:
        """Transforms a document with these parameters. Gives text, or bytes where ``xsl:output`` names another
        encoding than UTF-8. In ``async def`` services the call is awaited.
        """
        raise NotImplementedError


class Transforms:
    """``self.transform["NAME"](xml, {"rate": 1.5})``: stylesheets, which are definitions of kind ``stylesheet``."""

    def __getitem__(self, name: str) -> Stylesheet:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        raise NotImplementedError

    def get(self, name: str) -> Stylesheet | None:
        """The same, or ``None`` when there is no such stylesheet."""
        raise NotImplementedError

    def from_xml(self, xml: str | bytes, *, arrays: Iterable[str] = ()) -> Any:
        """A document as plain data: elements by name, attributes as ``@name``, all values text. ``arrays`` are
        elements that are lists even where there is one of them.
        """
        raise NotImplementedError

    def to_xml(self, data: Any, root: str = "response") -> str:
        """Plain data as a document with the element ``root``."""
        raise NotImplementedError


class Config(Mapping[str, Any]):
    """``self.config``: the files of ``config/user``, as ``self.config.FILE.SECTION.KEY``."""

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError


class ServiceInterface:
    """What the server gives every service."""

    request: Request
    response: Response
    #: The correlation id: 32 hexadecimal digits.
    cid: str
    logger: Logger
    channel: Channel
    dictionary: Dictionaries
    data: Data
    out: Out
    #: Short form of ``out.rest``.
    rest: HttpConnections
    #: Short form of ``out.soap``.
    soap: SoapConnections
    transform: Transforms
    config: Config

    def __init__(self) -> None:
        self.request = Request()
        self.response = Response()
        self.response.payload = None
        self.response.status_code = None
        self.response.headers = {}
        self.response.content_type = None
        self.cid = "0" * 31 + "1"

    def invoke(self, service: str | type[Service], payload: Any = None, /, **fields: Any) -> Any:
        """Calls another service and gives its answer; ``fields`` are the payload when there is none. In
        ``async def`` services the call is awaited.
        """
        raise RuntimeError("invoke works inside a Crosstie server only")
