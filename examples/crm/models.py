"""What the services take and give. One declaration validates requests and makes the OpenAPI document."""

from datetime import date
from decimal import Decimal
from enum import Enum

from crosstie import Model, field


class Tier(Enum):
    STANDARD = "standard"
    GOLD = "gold"


class Address(Model):
    street: str
    city: str
    country: str = field(default="DE", pattern="^[A-Z]{2}$")


class NewCustomer(Model, extra="forbid"):
    name: str = field(min_length=1, max_length=100)
    email: str = field(pattern="^[^@ ]+@[^@ ]+$")
    tier: Tier = Tier.STANDARD
    born: date | None = None
    address: Address | None = None


class Customer(Model):
    id: int
    name: str
    email: str
    tier: Tier
    born: date | None
    address: Address | None


class CustomerId(Model):
    id: int


class CustomerFilter(Model):
    tier: Tier | None = None


class Item(Model):
    article: str = field(min_length=1)
    quantity: int = field(minimum=1, maximum=1000)
    price: Decimal = field(minimum=0)


class QuoteRequest(Model):
    tier: Tier
    items: list[Item] = field(min_items=1)


class Quote(Model):
    total: Decimal
    discount_percent: int


class NewOrder(Model):
    id: int
    items: list[Item] = field(min_items=1)


class Order(Model):
    number: int
    customer: str
    total: Decimal


class StatementOfAccount(Model):
    customer: str
    orders: list[Order]
