"""Orders: what they cost, placing them, and a customer's statement."""

from decimal import Decimal

from crosstie import Service

from .models import CustomerId, NewOrder, Order, Quote, QuoteRequest, StatementOfAccount
from .store import ORDER, next_number, sortable


class QuotePrice(Service):
    """What items cost a customer of a tier. Discounts are in the dictionary ``crm.discounts``."""

    name = "crm.price.quote"
    input = QuoteRequest
    output = Quote

    def handle(self):
        wanted = self.request.input
        percent = self.dictionary["crm.discounts"].get(wanted.tier.value, 0)
        full = sum((item.price * item.quantity for item in wanted.items), Decimal(0))
        total = (full * (100 - percent) / 100).quantize(Decimal("0.01"))
        self.response.payload = Quote(total=total, discount_percent=percent)


class PlaceOrder(Service):
    """Places an order of the customer in the path."""

    name = "crm.order.place"
    input = NewOrder
    output = Order

    def handle(self):
        order = self.request.input
        # A failure of either service is this one's: an unknown customer is 404 here as well.
        customer = self.invoke("crm.customer.get", {"id": order.id})
        items = [item.to_dict() for item in order.items]
        quote = self.invoke("crm.price.quote", {"tier": customer["tier"], "items": items})
        number = next_number(self.data, "order")
        placed = {"number": number, "customer": customer["name"], "total": quote["total"]}
        self.data.set(f"{ORDER}{sortable(order.id)}/{sortable(number)}", placed)
        self.response.status_code = 201
        self.response.payload = placed


class Statement(Service):
    """A customer's orders. Asynchronous: while it waits it holds no thread."""

    name = "crm.customer.statement"
    input = CustomerId
    output = StatementOfAccount

    async def handle(self):
        number = self.request.input.id
        customer = await self.invoke("crm.customer.get", {"id": number})
        keys = await self.data.keys(f"{ORDER}{sortable(number)}/")
        orders = [await self.data.get(key) for key in keys]
        self.response.payload = {"customer": customer["name"], "orders": orders}
