"""What callers of the REST API see. The old system's names appear in `old_system.py` alone."""

from datetime import date
from decimal import Decimal
from enum import Enum

from crosstie import Model, field


class Product(Enum):
    HOUSEHOLD = "household"
    CAR = "car"
    LEGAL = "legal"


class NewPolicy(Model, extra="forbid"):
    holder: str = field(min_length=1, max_length=100)
    product: Product
    sum_insured: Decimal = field(minimum=1)


class Policy(Model):
    number: int
    holder: str
    product: Product
    sum_insured: Decimal
    issued: date


class PolicyNumber(Model):
    number: int


class Holder(Model):
    holder: str = field(min_length=1)


class Risk(Model):
    product: Product
    sum_insured: Decimal = field(minimum=1)


class Premium(Model):
    product: Product
    sum_insured: Decimal
    premium: Decimal
