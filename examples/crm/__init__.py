"""A customer register: several services that call each other, in one package and so one unit."""

from .customers import CreateCustomer, GetCustomer, ListCustomers
from .orders import PlaceOrder, QuotePrice, Statement

__all__ = ["CreateCustomer", "GetCustomer", "ListCustomers", "PlaceOrder", "QuotePrice", "Statement"]
