"""Quotes: by the old system, and by the rule that takes its place.

Which of both answers is said by the definitions, not here.
"""

from decimal import Decimal

from crosstie import BadRequest, Model, Service

from .models import Premium, Risk
from .old_system import CODES, PRODUCTS, _OldSystem


class OldQuote(_OldSystem):
    """What insurance costs a year, as the old system says."""

    name = "migration.quote.old"
    input = Risk
    output = Premium

    def handle(self):
        risk = self.request.input
        answer = self.ask("Quote", ProdCd=CODES[risk.product], SumIns=risk.sum_insured)
        return Premium(product=risk.product, sum_insured=risk.sum_insured, premium=answer["Premium"])


class Quote(Service):
    """What insurance costs a year, by the rates per thousand in the dictionary ``migration.rates``."""

    name = "migration.quote"
    input = Risk
    output = Premium

    def handle(self):
        risk = self.request.input
        rate = Decimal(self.dictionary["migration.rates"][risk.product.value])
        premium = (risk.sum_insured / 1000 * rate).quantize(Decimal("0.01"))
        return Premium(product=risk.product, sum_insured=risk.sum_insured, premium=premium)


class OldRisk(Model):
    ProdCd: str
    SumIns: Decimal


class QuoteOverSoap(Service):
    """The same for callers that go on speaking to the old system: its operation, by its description."""

    name = "migration.quote.soap"
    input = OldRisk

    def handle(self):
        asked = self.request.input
        if asked.ProdCd not in PRODUCTS:
            raise BadRequest(f"product {asked.ProdCd} is not sold")
        risk = Risk(product=PRODUCTS[asked.ProdCd], sum_insured=asked.SumIns)
        return {"Premium": self.invoke("migration.quote", risk)["premium"]}
