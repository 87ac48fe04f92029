"""Customers: create, get, list."""

from crosstie import Conflict, NotFound, Service

from .models import Customer, CustomerFilter, CustomerId, NewCustomer
from .store import CUSTOMER, EMAIL, next_number, sortable


class CreateCustomer(Service):
    """Registers a customer. An e-mail address belongs to one customer."""

    name = "crm.customer.create"
    input = NewCustomer
    output = Customer

    def handle(self):
        wanted = self.request.input
        number = next_number(self.data, "customer")
        if not self.data.cas(EMAIL + wanted.email.lower(), number, expected=0):
            raise Conflict("a customer with this e-mail address exists")
        customer = {"id": number, **wanted.to_dict()}
        self.data.set(CUSTOMER + sortable(number), customer)
        self.logger.info("registered customer %d", number)
        self.response.status_code = 201
        self.response.headers["Location"] = f"/crm/customers/{number}"
        self.response.payload = customer


class GetCustomer(Service):
    """One customer by number."""

    name = "crm.customer.get"
    input = CustomerId
    output = Customer

    def handle(self):
        customer = self.data.get(CUSTOMER + sortable(self.request.input.id))
        if customer is None:
            raise NotFound(f"there is no customer {self.request.input.id}")
        self.response.payload = customer


class ListCustomers(Service):
    """All customers, or those of one tier, by number."""

    name = "crm.customer.list"
    input = CustomerFilter
    output = list[Customer]

    def handle(self):
        wanted = self.request.input.tier
        found = [self.data.get(key) for key in self.data.keys(CUSTOMER)]
        self.response.payload = [
            customer for customer in found if wanted is None or customer["tier"] == wanted.value
        ]
