"""Why something is changed: by which call, whose, and what they may see."""

from dataclasses import dataclass

from kahuna.security.scope import EVERYTHING, Scope


@dataclass(frozen=True, slots=True)
class Cause:
    """What asks for a change. `method` is the call's name, also where a rule or a timer makes it (`StopInstance`);
    `caller` says who: `admin`, `agent:<id>`, or the rule; `reason` is theirs, in words."""

    method: str
    caller: str
    reason: str = ""
    scope: Scope = EVERYTHING
