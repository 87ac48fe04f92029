"""One of every type, and of everything else that a SOAP client meets."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

from crosstie import Conflict, Model, Service, soap

PATH = "/matrix"
NAMESPACE = "urn:example:matrix"


def operation(**options):
    return [soap(PATH, namespace=NAMESPACE, service_name="Matrix", **options)]


class Kind(Enum):
    RETAIL = "retail"
    TRADE = "trade"


class Line(Model):
    sku: str
    quantity: int = 1


class Everything(Model):
    text: str
    whole: int
    ratio: float
    flag: bool
    price: Decimal
    day: date
    moment: datetime
    pause: timedelta
    id: UUID
    content: bytes
    kind: Kind
    nothing: str | None
    main: Line
    tags: list[str]
    lines: list[Line]
    optional: str | None = None


class Echo(Service):
    """Answers what it is given."""

    name = "matrix.echo"
    channels = operation()
    input = Everything
    output = Everything

    def handle(self):
        given = self.request.input
        assert isinstance(given.price, Decimal) and isinstance(given.moment, datetime), given
        assert isinstance(given.content, bytes) and isinstance(given.kind, Kind), given
        self.response.payload = given


class Blob(Model):
    content: bytes


class Store(Service):
    """Takes a binary and gives it back turned round."""

    name = "matrix.store"
    channels = operation()
    input = Blob
    output = Blob

    def handle(self):
        self.logger.info("stored with %d attachments", len(self.request.soap.attachments))
        return Blob(content=self.request.input.content[::-1])


class Reason(Model):
    text: str


class Refuse(Service):
    """Always fails, with the reason given."""

    name = "matrix.refuse"
    channels = operation()
    input = Reason
    output = Reason

    def handle(self):
        raise Conflict(self.request.input.text)


class Notify(Service):
    """Takes note, and answers nothing."""

    name = "matrix.notify"
    channels = operation(one_way=True)
    input = Reason

    def handle(self):
        self.logger.info("noted %s", self.request.input.text)


class Caller(Model):
    version: str
    action: str | None
    session: str | None
    username: str | None


class Who(Service):
    """Says who calls, and how."""

    name = "matrix.who"
    channels = operation()
    output = Caller

    def handle(self):
        message = self.request.soap
        session = message.header("Session")
        security = self.request.security
        self.response.soap.add_header("Answered", {"by": "matrix"}, namespace=NAMESPACE)
        return Caller(
            version=message.version,
            action=message.action,
            session=session and session.value,
            username=security and security.username,
        )
