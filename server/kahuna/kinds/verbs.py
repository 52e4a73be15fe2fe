"""How a kind declares its verbs: what changes desired state, what an agent does once, and what does something else."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_DECLARED = "_declared_verb"


class Form(Enum):
    """What a verb is."""

    STATE = "state"  # (self, tx, resource, request): changes the desired state of a resource
    COMMAND = "command"  # (self, request) -> fleet_pb2.Command: its agent does it once, and no state changes
    CALL = "call"  # async (self, call, request) -> answer: anything else, a stream of answers included


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of a kind: the method of that name carries it out."""

    form: Form
    method: str
    when_deleting: bool = False  # a resource marked for deletion takes it, too


def changes_state(function: F) -> F:
    """A change of desired state under a name."""
    return _declare(function, Verb(Form.STATE, function.__name__))


def changes_state_when_deleting(function: F) -> F:
    """A change of desired state under a name, for a resource marked for deletion, too."""
    return _declare(function, Verb(Form.STATE, function.__name__, when_deleting=True))


def commands_agent(function: F) -> F:
    """Something that the resource's agent does once."""
    return _declare(function, Verb(Form.COMMAND, function.__name__))


def answers_call(function: F) -> F:
    """Neither: it reads, waits or streams."""
    return _declare(function, Verb(Form.CALL, function.__name__))


def declared_verbs(kind: type) -> dict[str, Verb]:
    """The verbs that a class declares, by their names in the contract: `plan-crush`."""
    found = {name: getattr(getattr(kind, name), _DECLARED, None) for name in dir(kind)}
    return {name.replace("_", "-"): verb for name, verb in found.items() if verb is not None}


def _declare(function: F, verb: Verb) -> F:
    setattr(function, _DECLARED, verb)
    return function
