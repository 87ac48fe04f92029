"""What can be called in rpc style: every part of a message is always there."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

from crosstie import Conflict, Model, Service, soap


def operation(**options):
    return [soap("/calls", namespace="urn:example:calls", service_name="Calls", style="rpc", **options)]


class Kind(Enum):
    RETAIL = "retail"
    TRADE = "trade"


class Line(Model):
    sku: str
    quantity: int = 1
    remark: str | None = None


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
    main: Line
    tags: list[str]
    lines: list[Line]


class Call(Service):
    """Answers what it is given."""

    name = "calls.call"
    channels = operation()
    input = Everything
    output = Everything

    def handle(self):
        given = self.request.input
        assert isinstance(given.price, Decimal) and isinstance(given.moment, datetime), given
        assert isinstance(given.content, bytes) and isinstance(given.kind, Kind), given
        self.response.payload = given


class Terms(Model):
    term: list[int]


class Total(Service):
    """One result, which is no object."""

    name = "calls.total"
    channels = operation()
    input = Terms
    output = int

    def handle(self):
        return sum(self.request.input.term)


class Now(Service):
    """Takes nothing."""

    name = "calls.now"
    channels = operation()
    output = str

    def handle(self):
        return "now"


class Reason(Model):
    text: str


class Refuse(Service):
    """Always fails, with the reason given."""

    name = "calls.refuse"
    channels = operation()
    input = Reason
    output = Reason

    def handle(self):
        raise Conflict(self.request.input.text)


class Notify(Service):
    """Takes note, and answers nothing."""

    name = "calls.notify"
    channels = operation(one_way=True)
    input = Reason

    def handle(self):
        self.logger.info("noted %s", self.request.input.text)
