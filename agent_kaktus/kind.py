"""The kinds of this agent: their settings and the state of the host that they are planned from."""

from typing import TypeAlias, TypeVar

from agent_kaktus.actual import Actual
from agent_kaktus.settings import Settings
from kowa.runtime import kind
from kowa.runtime.desired import DesiredObject

D = TypeVar("D", bound=DesiredObject)

View: TypeAlias = kind.View[Settings, Actual]
Kind: TypeAlias = kind.Kind[D, Settings, Actual]
Kinds: TypeAlias = kind.Kinds[Settings, Actual]
