"""``Service``: the base of every service."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ._channels import Channel

if TYPE_CHECKING:
    from ._interface import ServiceInterface as _Base
else:
    try:
        from _crosstie import ServiceBase as _Base
    except ImportError:
        from ._interface import ServiceInterface as _Base

#: What the server puts before the name of a unit's modules; no part of any service's name.
PRIVATE_PREFIX = re.compile(r"\b_ct\d+\.")


class Service(_Base):
    """One service: a class with ``handle``, made anew for every call.

    ``def handle(self)`` runs on a thread of its own and may block; ``async def handle(self)`` runs on a loop
    and awaits. ``handle_GET``, ``handle_POST`` … instead of ``handle`` take one HTTP method each; the others
    get 405. What ``handle`` returns is the payload of the response unless ``self.response.payload`` was set.

    A class whose name starts with an underscore, or without a handler, is no service.
    """

    #: The service's name; ``module.class-name`` when empty.
    name: ClassVar[str] = ""
    #: Channels that lead here.
    channels: ClassVar[Sequence[Channel]] = ()
    #: What the request must be: a model, or any type a model's field may have.
    input: ClassVar[Any] = None
    #: What the answer is, likewise.
    output: ClassVar[Any] = None
    #: How long one call may take.
    deadline_ms: ClassVar[int | None] = None

    @classmethod
    def get_name(cls) -> str:
        """The name this service has in the cluster."""
        own = cls.__dict__.get("name", "")
        return own if own else f"{PRIVATE_PREFIX.sub('', cls.__module__)}.{uncamelify(cls.__name__)}"

    def accept(self) -> bool:
        """Whether this call is taken; ``False`` answers 400."""
        return True

    def before_handle(self) -> Any:
        """Runs before the handler; may be ``async def`` where the handler is."""

    def after_handle(self) -> Any:
        """Runs after a handler that succeeded, before the answer is made."""


def uncamelify(name: str) -> str:
    """``GetCustomer`` → ``get-customer``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
