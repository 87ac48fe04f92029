"""The old system: policies, over SOAP 1.1, in memory. `python3 examples/migration/legacy PORT`

Made with spyne (Debian: python3-spyne). Its description is at `?wsdl`; each operation it is asked for is a line on
standard output. It knows nothing of Crosstie.
"""

import itertools
import logging
import sys
from datetime import date
from decimal import Decimal as Number
from socketserver import ThreadingMixIn
from threading import Lock
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from spyne import Application, ComplexModel, Date, Decimal, Fault, Integer32, ServiceBase, Unicode, rpc
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication

NAMESPACE = "urn:example:policies"
PER_THOUSAND = {"HH": Number("1.20"), "CAR": Number("31.50"), "LEGAL": Number("4.75")}


def mandatory(kind):
    return kind.customize(min_occurs=1, nillable=False)


class Policy(ComplexModel):
    __namespace__ = NAMESPACE
    _type_info = [
        ("PolNo", mandatory(Integer32)),
        ("HolderNm", mandatory(Unicode)),
        ("ProdCd", mandatory(Unicode)),
        ("SumIns", mandatory(Decimal)),
        ("IssDt", mandatory(Date)),
    ]


policies = {1001: Policy(PolNo=1001, HolderNm="Ada", ProdCd="HH", SumIns=Number(50000), IssDt=date(1998, 3, 1))}
numbers = itertools.count(1002)
lock = Lock()


def refused(name, text):
    return Fault("Client", text, detail={name: text})


def rate_of(product):
    if product not in PER_THOUSAND:
        raise refused("NoSuchProduct", f"product {product} is not sold")
    return PER_THOUSAND[product]


class Policies(ServiceBase):
    @rpc(mandatory(Integer32), _returns=Policy, _out_variable_name="Policy")
    def GetPolicy(ctx, PolNo):
        if PolNo not in policies:
            raise refused("NoSuchPolicy", f"policy {PolNo} does not exist")
        return policies[PolNo]

    @rpc(mandatory(Unicode), _returns=Policy.customize(max_occurs="unbounded"), _out_variable_name="Policy")
    def FindPolicies(ctx, HolderNm):
        return [policy for policy in list(policies.values()) if policy.HolderNm == HolderNm]

    @rpc(
        mandatory(Unicode), mandatory(Unicode), mandatory(Decimal), _returns=Policy, _out_variable_name="Policy"
    )
    def IssuePolicy(ctx, HolderNm, ProdCd, SumIns):
        rate_of(ProdCd)
        with lock:
            if any((policy.HolderNm, policy.ProdCd) == (HolderNm, ProdCd) for policy in policies.values()):
                raise refused("AlreadyInsured", f"{HolderNm} has product {ProdCd} already")
            number = next(numbers)
            policies[number] = Policy(
                PolNo=number, HolderNm=HolderNm, ProdCd=ProdCd, SumIns=SumIns, IssDt=date.today()
            )
            return policies[number]

    @rpc(mandatory(Unicode), mandatory(Decimal), _returns=mandatory(Decimal), _out_variable_name="Premium")
    def Quote(ctx, ProdCd, SumIns):
        return (SumIns / 1000 * rate_of(ProdCd)).quantize(Number("0.01"))


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Silent(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def main():
    logging.disable(logging.CRITICAL)
    application = Application(
        [Policies], NAMESPACE, name="Policies", in_protocol=Soap11(validator="lxml"), out_protocol=Soap11()
    )
    application.event_manager.add_listener("method_call", lambda ctx: print(ctx.descriptor.name, flush=True))
    with make_server(
        "127.0.0.1", int(sys.argv[1]), WsgiApplication(application), server_class=Server, handler_class=Silent
    ) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
