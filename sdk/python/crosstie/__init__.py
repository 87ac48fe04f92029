"""What a service imports.

``Service`` is the base of every service, ``Model`` declares input and output, ``rest``, ``http``,
``jsonrpc``, ``soap`` and ``amqp`` declare channels beside a service, and the exceptions end a call with the matching status.
"""

from ._channels import Channel, RateLimit, amqp, http, jsonrpc, rest, soap
from ._errors import (
    BadGateway,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    GatewayTimeout,
    InternalServerError,
    MethodNotAllowed,
    ModelError,
    NotFound,
    PayloadTooLarge,
    ServiceError,
    ServiceUnavailable,
    SoapFault,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
    UpstreamError,
)
from ._model import Model, field
from ._service import Service
from ._sql import ManyRows, NoRow, SqlError, SqlIntegrityError

__all__ = [
    "BadGateway",
    "BadRequest",
    "Channel",
    "Conflict",
    "DeadlineExceeded",
    "Forbidden",
    "GatewayTimeout",
    "InternalServerError",
    "ManyRows",
    "MethodNotAllowed",
    "Model",
    "ModelError",
    "NoRow",
    "NotFound",
    "PayloadTooLarge",
    "RateLimit",
    "Service",
    "ServiceError",
    "ServiceUnavailable",
    "SoapFault",
    "SqlError",
    "SqlIntegrityError",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
    "UpstreamError",
    "amqp",
    "field",
    "http",
    "jsonrpc",
    "rest",
    "soap",
]
