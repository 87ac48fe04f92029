"""Orders that come in over SOAP, go to a stock system over REST and into a database, and are told over AMQP."""

from .orders import CountOrders, GetOrder, PlaceOrder, Prepare
from .shipping import ShipOrder

__all__ = ["CountOrders", "GetOrder", "PlaceOrder", "Prepare", "ShipOrder"]
