"""What the loop asks of a kind of object. Each noun's module answers for its own, and the loop knows none by name."""

from collections.abc import Iterable
from typing import Any, TypeVar

from agent_kaktus.verdict import AS_WANTED, GONE, Verdict
from agent_kaktus.view import View
from kowa.runtime import desired
from kowa.runtime.desired import DesiredObject

D = TypeVar("D", bound=DesiredObject)

SPACE_GRAIN = 16 << 20  # bytes: space is reported rounded to this, or each look would send a report


class Kind(desired.Kind[D]):
    """One kind of object. What is not overridden is right for a kind that asks nothing of the host."""

    is_context = False  # it asks nothing of the host, and is as wanted though the host can't be seen

    async def look(self, host: Any) -> Any:
        """What this kind sees on a host beside what all share; it stands in `actual.by_kind` under the kind's value."""
        return None

    def plan(self, view: View, wanted: D) -> Verdict:
        """The least steps that turn what is into what is wanted. Pure."""
        return GONE if wanted.gone else AS_WANTED

    def fill_status(self, view: View, wanted: D, resource: Any) -> None:
        """Puts what is seen of an object into the status of a resource to report."""

    def clear_unseen(self, resource: Any) -> None:
        """Takes from a last report what may have changed while the host can't be seen."""

    def strangers(self, view: View) -> Iterable[str]:
        """What is on the host like objects of this kind, and in no slice."""
        return ()

    def observe(self, view: View) -> None:
        """Brings the memory of this kind up to what is seen."""

    def deadlines(self, view: View) -> Iterable[float]:
        """When something is due though nothing moves, in seconds of the loop's clock."""
        return ()


def coarse(size: int) -> int:
    """A number of bytes as it is reported."""
    return size // SPACE_GRAIN * SPACE_GRAIN
