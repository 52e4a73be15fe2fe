"""How a kind declares its verbs: what changes desired state, what an agent does once, and what does something else."""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Form(Enum):
    """What a verb is, and how its method is called."""

    STATE = "state"  # (self, tx, resource, request): changes the desired state of a resource
    STATE_WHEN_DELETING = "state when deleting"  # the same, of one that is marked for deletion, too
    COMMAND = "command"  # (self, request) -> fleet_pb2.Command: its agent does it once, and no state changes
    CALL = "call"  # async (self, call, request) -> answer: anything else, a stream of answers included


def form_of(method: object) -> Form | None:
    """What a method has been declared as; nothing if it is no verb."""
    return getattr(method, "form", None)


def _declare(form: Form) -> Callable[[F], F]:
    def declare(method: F) -> F:
        method.form = form  # type: ignore[attr-defined]
        return method

    return declare


changes_state = _declare(Form.STATE)
changes_state_when_deleting = _declare(Form.STATE_WHEN_DELETING)
commands_agent = _declare(Form.COMMAND)
answers_call = _declare(Form.CALL)
