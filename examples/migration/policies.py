"""Policies: get, find, issue. The old system keeps them."""

from crosstie import rest

from .models import Holder, NewPolicy, Policy, PolicyNumber
from .old_system import CODES, _OldSystem, policy_of


class GetPolicy(_OldSystem):
    """One policy by number."""

    name = "migration.policy.get"
    channels = [rest("GET", "/policies/{number:int}")]
    input = PolicyNumber
    output = Policy

    def handle(self):
        return policy_of(self.ask("GetPolicy", PolNo=self.request.input.number)["Policy"])


class FindPolicies(_OldSystem):
    """The policies of a holder."""

    name = "migration.policy.find"
    channels = [rest("GET", "/policies")]
    input = Holder
    output = list[Policy]

    def handle(self):
        return [policy_of(record) for record in self.ask("FindPolicies", HolderNm=self.request.input.holder)["Policy"]]


class IssuePolicy(_OldSystem):
    """Issues a policy. A holder has one for each product."""

    name = "migration.policy.issue"
    channels = [rest("POST", "/policies")]
    input = NewPolicy
    output = Policy

    def handle(self):
        wanted = self.request.input
        answer = self.ask(
            "IssuePolicy", HolderNm=wanted.holder, ProdCd=CODES[wanted.product], SumIns=wanted.sum_insured
        )
        policy = policy_of(answer["Policy"])
        self.response.status_code = 201
        self.response.headers["Location"] = f"/policies/{policy.number}"
        return policy
