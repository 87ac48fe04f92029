"""Exceptions that end a call with a status.

Raise one and its caller gets that status and text, in the form of its protocol. Anything else a service lets
escape is a 500 whose traceback goes to the log under the cid and never to the caller.

Each takes the text for the caller: ``NotFound("no such customer")``. The correlation id may come first, as in
``NotFound(self.cid, "no such customer")``; it is part of every answer anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

Fault = tuple[str, str]


def _is_cid(value: object) -> bool:
    return isinstance(value, str) and len(value) == 32 and all(c in "0123456789abcdef" for c in value)


class ServiceError(Exception):
    """Ends the call; the base of the exceptions a caller is told about.

    ``status`` may be any error status, also one without a class of its own:
    ``ServiceError("gone", status=410)``.
    """

    kind: ClassVar[str] = "internal"
    status: int = 500

    #: ``upstream`` where another system that was called caused it.
    origin: str | None = None
    #: What went wrong with that call: ``connect``, ``tls``, ``deadline``, ``circuit``, ``broken`` …
    reason: str | None = None
    #: The same in a sentence, for a log: callers are not told.
    detail: str | None = None

    #: What the caller is told.
    message: str
    #: ``(pointer, detail)`` for each thing that is wrong with the request.
    faults: list[Fault]
    #: Seconds after which trying again makes sense.
    retry_after: float | None
    #: The ``WWW-Authenticate`` header of a 401.
    challenge: str | None
    #: The methods the ``Allow`` header of a 405 lists.
    allow: list[str]

    def __init__(
        self,
        *args: Any,
        status: int | None = None,
        faults: Iterable[Fault] = (),
        retry_after: float | None = None,
        challenge: str | None = None,
        allow: Iterable[str] = (),
        needs_msg: bool = True,
    ) -> None:
        texts = list(args)
        if texts and (len(texts) > 1 or texts[0] == "") and (texts[0] == "" or _is_cid(texts[0])):
            texts.pop(0)
        self.message = "" if not texts or not needs_msg else str(texts[0])
        super().__init__(self.message)
        if status is not None:
            if not 400 <= status <= 599:
                raise ValueError(f"{status} is not an error status")
            self.status = status
        self.faults = [(str(pointer), str(detail)) for pointer, detail in faults]
        self.retry_after = retry_after
        self.challenge = challenge if challenge is not None or len(texts) < 2 else str(texts[1])
        self.allow = [str(method) for method in allow]


class BadRequest(ServiceError):
    """400: the request is wrong; ``faults`` may say where."""

    kind = "bad_request"
    status = 400


class Unauthorized(ServiceError):
    """401: credentials are missing or wrong; ``challenge`` becomes ``WWW-Authenticate``."""

    kind = "unauthorized"
    status = 401


class Forbidden(ServiceError):
    """403: the caller may not do this."""

    kind = "forbidden"
    status = 403


class NotFound(ServiceError):
    """404: there is nothing of that name."""

    kind = "not_found"
    status = 404


class MethodNotAllowed(ServiceError):
    """405: not with this method."""

    kind = "method_not_allowed"
    status = 405


class Conflict(ServiceError):
    """409: the state forbids it. Also raised by ``self.data`` when a compare-and-set found another version."""

    kind = "conflict"
    status = 409


class PayloadTooLarge(ServiceError):
    """413: too much."""

    kind = "payload_too_large"
    status = 413


class UnsupportedMediaType(ServiceError):
    """415: not in this format."""

    kind = "unsupported_media_type"
    status = 415


class TooManyRequests(ServiceError):
    """429: not so often; ``retry_after`` says when again."""

    kind = "too_many_requests"
    status = 429


class InternalServerError(ServiceError):
    """500 with a text for the caller."""

    kind = "internal"
    status = 500


class BadGateway(ServiceError):
    """502: an external system failed."""

    kind = "bad_gateway"
    status = 502


class UpstreamError(BadGateway):
    """502: another system answered that it failed or refused; raised by ``raise_for_status``."""

    origin = "upstream"
    reason = "status"

    #: What it answered.
    response: Any

    def __init__(self, response: Any = None, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.response = response
        self.detail = f"the other system answered {getattr(response, 'status_code', 'nothing')}"

    def __str__(self) -> str:
        return self.message or str(self.detail)


class SoapFault(UpstreamError):
    """502: another system answered with a fault; raised by ``self.out.soap["NAME"].call``."""

    reason = "fault"

    #: Who is to blame, as SOAP 1.2 calls it: ``Sender``, ``Receiver``, ``MustUnderstand`` …
    code: str
    #: What exactly, the broadest first, each as ``{namespace}name``.
    subcodes: list[str]
    #: What went wrong, as the other system says.
    text: str
    #: Who found out.
    node: str | None
    #: What the application says about it: the elements of the detail by name, by their declared types.
    data: Any
    #: The fault as XML.
    xml: str

    def __init__(
        self,
        *args: Any,
        code: str = "Receiver",
        subcodes: Iterable[str] = (),
        text: str = "",
        node: str | None = None,
        data: Any = None,
        xml: str = "",
        detail: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(None, *args, **more)
        self.code = code
        self.subcodes = list(subcodes)
        self.text = text
        self.node = node
        self.data = data
        self.xml = xml
        self.detail = detail or f"the other system answered with a fault: {code}: {text}"


class ServiceUnavailable(ServiceError):
    """503: not now; ``retry_after`` says when again."""

    kind = "unavailable"
    status = 503


class GatewayTimeout(ServiceError):
    """504: something this call waited for did not answer in time."""

    kind = "timeout"
    status = 504


class DeadlineExceeded(BaseException):
    """Raised inside a handler whose deadline passed; its caller has its answer (504) already.

    Not an ``Exception``, so that ``except Exception`` does not keep the handler running.
    """


class ModelError(ValueError):
    """Data does not fit a model; ``faults`` lists ``(pointer, detail)``."""

    faults: list[Fault]

    def __init__(self, message: str, faults: Iterable[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults)


#: The exception for each kind of failure, for failures that come from elsewhere.
BY_KIND: dict[str, type[ServiceError]] = {
    cls.kind: cls
    for cls in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        PayloadTooLarge,
        UnsupportedMediaType,
        TooManyRequests,
        InternalServerError,
        BadGateway,
        ServiceUnavailable,
        GatewayTimeout,
    )
}
