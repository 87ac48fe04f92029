"""A REST API in front of an old system that speaks SOAP, and the first of its operations moved away from it."""

from .policies import FindPolicies, GetPolicy, IssuePolicy
from .quotes import OldQuote, Quote, QuoteOverSoap

__all__ = ["FindPolicies", "GetPolicy", "IssuePolicy", "OldQuote", "Quote", "QuoteOverSoap"]
