"""The warehouse: ships what was ordered."""

from crosstie import Service, ServiceUnavailable, amqp

from .models import OrderPlaced


class ShipOrder(Service):
    """Ships an order: once, however often its event comes."""

    name = "bridge.order.ship"
    channels = [
        amqp(
            "bridge.orders",
            connection="bridge.broker",
            idempotency="message_id",
            retry={"max": 5, "pause_ms": 200},
            message_log={},
        )
    ]
    input = OrderPlaced

    def handle(self):
        number = self.request.input.number
        shipped = self.out.sql["bridge.db"].execute(
            "UPDATE placed_order SET state = 'shipped' WHERE number = :number", {"number": number}
        )
        if shipped.rowcount == 0:
            # The event comes before the transaction ends, so it may be a moment early: to be tried again. One whose
            # order never comes is a dead letter in the end.
            raise ServiceUnavailable(f"order {number} is not there yet")
        self.logger.info("order %d shipped", number)
