"""Orders: placing, looking at, counting them."""

from crosstie import Conflict, NotFound, Service, soap

from . import store
from .models import NewOrder, Order, OrderNumber, OrderPlaced, State

# Services that say this are the operations of one SOAP channel.
ENTRANCE = {
    "namespace": "urn:example:bridge",
    "service_name": "Orders",
    "security": "bridge.shops",
    "message_log": {},
}


class PlaceOrder(Service):
    """Places an order, and tells the warehouse. To ask again with the same reference is safe."""

    name = "bridge.order.place"
    channels = [soap("/bridge/orders", **ENTRANCE)]
    input = NewOrder
    output = Order

    def handle(self):
        wanted = self.request.input
        db = self.out.sql["bridge.db"]
        known = store.by_reference(db, wanted.reference)
        if known is not None:
            if known["items"] != [item.to_dict() for item in wanted.items]:
                raise Conflict(f"the reference {wanted.reference} is that of another order")
            # Its shop did not hear our answer.
            return known
        number = store.next_number(db)
        self.reserve(number, wanted)
        try:
            self.store_and_tell(db, number, wanted)
        except Exception:
            self.give_back(number)
            raise
        self.logger.info("order %d placed for %s", number, wanted.reference)
        return Order(number=number, reference=wanted.reference, state=State.PLACED, items=wanted.items)

    def reserve(self, number, wanted):
        answer = self.rest["bridge.stock"].put(
            {"items": [item.to_dict() for item in wanted.items]}, {"order": number}
        )
        if answer.status_code == 409:
            raise Conflict(answer.data["detail"])
        answer.raise_for_status()

    def store_and_tell(self, db, number, wanted):
        try:
            with db.transaction() as tx:
                store.insert(tx, number, wanted)
                # Before the commit: an order is never there without its event. The reverse is possible, an event
                # without its order, when the commit fails; bridge.order.ship knows.
                self.out.amqp["bridge.broker"].publish(
                    OrderPlaced(number=number, items=wanted.items),
                    routing_key="bridge.orders",
                    message_id=f"order-{number}",
                )
        except store.Taken:
            raise Conflict(f"the order {wanted.reference} is being placed already; ask again") from None

    def give_back(self, number):
        try:
            self.rest["bridge.stock"].delete(params={"order": number}).raise_for_status()
        except Exception as error:
            # The shop is told what went wrong first. This is for whoever reads the log.
            self.logger.error("what order %d reserved was not given back: %s", number, error)


class GetOrder(Service):
    """One order by number."""

    name = "bridge.order.get"
    channels = [soap("/bridge/orders", **ENTRANCE)]
    input = OrderNumber
    output = Order

    def handle(self):
        number = self.request.input.number
        order = store.by_number(self.out.sql["bridge.db"], number)
        if order is None:
            raise NotFound(f"there is no order {number}")
        return order


class CountOrders(Service):
    """How many orders are in which state. For operators: no channel leads here."""

    name = "bridge.order.count"

    def handle(self):
        rows = self.out.sql["bridge.db"].all("SELECT state, count(*) AS orders FROM placed_order GROUP BY state")
        return {state.value: 0 for state in State} | {row.state: row.orders for row in rows}


class Prepare(Service):
    """Makes the tables, where they are not there. No channel leads here."""

    name = "bridge.prepare"

    def handle(self):
        for table in store.TABLES:
            self.out.sql["bridge.db"].execute(table)
