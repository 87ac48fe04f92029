"""One of every type, and of everything else that a SOAP client meets."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Literal
from uuid import UUID

from crosstie import Conflict, Model, Service, field, soap

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


class Address(Model):
    street: str
    floor: int | None = None


class Customer(Model):
    name: str
    address: Address


class Order(Model):
    customer: Customer
    lines: list[Line]


class Deep(Model):
    small: int = field(minimum=0, maximum=100)
    size: Literal["s", "m"]
    at: time
    numbers: list[int]
    ratios: list[float]
    flags: list[bool]
    prices: list[Decimal]
    moments: list[datetime]
    orders: list[Order]


class Nest(Service):
    """Answers lists of scalars, and models in models in lists."""

    name = "matrix.nest"
    channels = operation()
    input = Deep
    output = Deep

    def handle(self):
        given = self.request.input
        assert isinstance(given.at, time) and given.size in ("s", "m"), given
        for values, kind in (
            (given.numbers, int), (given.ratios, float), (given.flags, bool), (given.prices, Decimal),
            (given.moments, datetime), (given.orders, Order),
        ):
            assert all(isinstance(value, kind) for value in values), values
        assert all(isinstance(order.customer.address, Address) for order in given.orders), given.orders
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


class Terms(Model):
    term: list[int]


class Sum(Model):
    label: str
    sum: int


class Addition(Model):
    label: str
    terms: Terms


class Add(Service):
    """Adds; what it looks like outside is said by a description of somebody else's."""

    name = "matrix.add"
    input = Addition
    output = Sum

    def handle(self):
        given = self.request.input
        return Sum(label=given.label, sum=sum(given.terms.term))
