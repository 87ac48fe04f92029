"""How the old system is spoken to: its names, its codes, its faults."""

from crosstie import BadRequest, Conflict, NotFound, Service, SoapFault

from .models import Policy, Product

CODES = {Product.HOUSEHOLD: "HH", Product.CAR: "CAR", Product.LEGAL: "LEGAL"}
PRODUCTS = {code: product for product, code in CODES.items()}

#: What callers are told, by the element in the detail of a fault.
ERRORS = {
    "NoSuchPolicy": (NotFound, "there is no such policy"),
    "NoSuchProduct": (BadRequest, "this product is not sold any more"),
    "AlreadyInsured": (Conflict, "the holder has a policy for this product"),
}


def policy_of(record):
    return Policy(
        number=record["PolNo"],
        holder=record["HolderNm"],
        product=PRODUCTS[record["ProdCd"]],
        sum_insured=record["SumIns"],
        issued=record["IssDt"],
    )


class _OldSystem(Service):
    """Base of the services that the old system does the work for."""

    def ask(self, operation, **parameters):
        """Calls an operation. A fault that callers can do something about becomes an error of their protocol;
        any other is a 502, like an old system that is away.
        """
        try:
            return self.out.soap["migration.old"].call(operation, parameters)
        except SoapFault as fault:
            for name in fault.data or ():
                if name in ERRORS:
                    error, text = ERRORS[name]
                    raise error(text) from fault
            raise
