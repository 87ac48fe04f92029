"""A server made with spyne: SOAP 1.1 and 1.2, on a port that is told on standard output."""

import datetime
import decimal
import logging
from wsgiref.simple_server import WSGIRequestHandler, make_server

from spyne import (
    AnyXml, Application, Array, Boolean, ByteArray, ComplexModel, Date, DateTime, Decimal, Double, Enum, Fault, Integer,
    Integer64, ServiceBase, Time, Unicode, rpc,
)
from spyne.model.primitive import Unicode
from spyne.protocol.soap import Soap11, Soap12
from spyne.server.wsgi import WsgiApplication

logging.disable(logging.CRITICAL)

Kind = Enum("plain", "gift", type_name="Kind")


class Line(ComplexModel):
    __namespace__ = "urn:shop"
    article = Unicode(min_occurs=1)
    count = Integer64(min_occurs=1)


class Order(ComplexModel):
    __namespace__ = "urn:shop"
    id = Integer64
    price = Decimal
    ratio = Double
    paid = Boolean
    at = DateTime
    day = Date
    time = Time
    tags = Array(Unicode)
    blob = ByteArray
    kind = Kind
    lines = Array(Line)
    big = Integer
    nothing = Unicode(nillable=True)


class Session(ComplexModel):
    __namespace__ = "urn:shop"
    user = Unicode
    level = Integer64


def service():
    class Shop(ServiceBase):
        __in_header__ = Session

        @rpc(Order, _returns=Order)
        def echo(ctx, order):
            assert isinstance(order.price, decimal.Decimal) and isinstance(order.day, datetime.date)
            return order

        @rpc(Order, _returns=Integer64)
        def count(ctx, order):
            return len(order.lines)

        @rpc(_returns=Unicode)
        def whoami(ctx):
            return f"{ctx.in_header.user} {ctx.in_header.level}"

        @rpc(Unicode, _returns=Unicode)
        def refuse(ctx, why):
            raise Fault("Client.Refused", why)

        @rpc(_returns=Unicode)
        def crash(ctx):
            return 1 / 0

    return Shop


def application(protocol):
    return WsgiApplication(
        Application([service()], "urn:shop", name="Shop", in_protocol=protocol(validator="lxml"), out_protocol=protocol())
    )


older, newer = application(Soap11), application(Soap12)


def both(environ, start_response):
    return (newer if environ["PATH_INFO"].startswith("/soap12") else older)(environ, start_response)


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


server = make_server("127.0.0.1", 0, both, handler_class=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
