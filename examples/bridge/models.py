"""What the services take and give. The description of the SOAP channel (WSDL) is made of it."""

from enum import Enum

from crosstie import Model, field


class Item(Model):
    article: str = field(min_length=1, max_length=40)
    quantity: int = field(minimum=1, maximum=1000)


class NewOrder(Model):
    #: The shop's own number of the order. Asking again with it changes nothing.
    reference: str = field(min_length=1, max_length=40)
    items: list[Item] = field(min_items=1, max_items=100)


class State(Enum):
    PLACED = "placed"
    SHIPPED = "shipped"


class Order(Model):
    number: int
    reference: str
    state: State
    items: list[Item]


class OrderNumber(Model):
    number: int


class OrderPlaced(Model):
    """The event."""

    number: int
    items: list[Item]
