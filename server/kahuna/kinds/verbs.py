"""Decorators by which a kind declares its verbs: changes of the desired state, commands for agents, other calls."""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Form(Enum):
    """The form of a verb, which decides how its method is called."""

    STATE = "state"  # (self, tx, resource, request): changes the desired state of a resource
    STATE_WHEN_DELETING = "state when deleting"  # the same, also for a resource marked for deletion
    COMMAND = "command"  # (self, request) -> fleet_pb2.Command: its agent does it once, and no state changes
    CALL = "call"  # async (self, call, request) -> response or a stream of them: any other call


def form_of(method: object) -> Form | None:
    """Returns the declared form of a method; None if it is not a verb."""
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
