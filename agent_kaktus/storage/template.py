"""Templates: images that volumes are made from, imported into a pool once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_kaktus.actual import Image
from agent_kaktus.plan import AS_WANTED, GONE, Kind, ObjectStep, Verdict, View
from agent_kaktus.storage.storage_pool import why_closed, why_unseen
from kowa import formats
from kowa.runtime.desired import DesiredObject, Identity
from kowa.v2 import template_pb2

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost


@dataclass(frozen=True, slots=True)
class Template(DesiredObject):
    pool: str
    source: str
    sha256: str

    @property
    def references(self) -> tuple[str, ...]:
        return (self.pool,)


class ImportTemplate(ObjectStep[Template]):
    """Begins the import, which goes on in the background."""

    verb = "import"

    async def do(self, host: "LocalHost") -> None:
        # It may have been imported since the host was looked at.
        if not host.storage.holds(self.wanted.pool, self.wanted.id):
            host.imports.begin(self.wanted)


class StopImport(ObjectStep[Template]):
    verb = "stop importing"

    async def do(self, host: "LocalHost") -> None:
        await host.imports.stop(self.wanted.id)


@dataclass(frozen=True, slots=True)
class RemoveTemplate(ObjectStep[Template]):
    verb = "remove template"
    image: Image

    async def do(self, host: "LocalHost") -> None:
        await host.storage.remove(self.image.pool, self.wanted.id)


class Templates(Kind[Template]):
    message, value = template_pb2.Template, Template

    def parse(self, identity: Identity, sent: template_pb2.Template) -> Template:
        sha256 = sent.sha256.lower()
        if not formats.SHA256.fullmatch(sha256):
            raise ValueError(f"sha256 {sent.sha256!r} is not a checksum")
        return Template(*identity, sent.storage_pool, sent.source, sha256)

    def plan(self, view: View, wanted: Template) -> Verdict:
        image = view.actual.images.get(wanted.id)
        if wanted.gone:
            return _plan_gone(view, wanted, image)
        if closed := why_closed(view, wanted.pool):
            return Verdict(waits=closed)
        if wanted.id in view.actual.importing:
            return Verdict(working=importing(view.actual.importing[wanted.id]))
        if image is None:
            return Verdict((ImportTemplate(wanted),))
        if image.pool != wanted.pool:
            return Verdict(fails=f"its file lies in pool {image.pool}")
        return Verdict(fails=image.broken) if image.broken else AS_WANTED

    def fill_status(self, view: View, wanted: Template, resource: template_pb2.Template) -> None:
        image = view.actual.images.get(wanted.id)
        if image is None:
            resource.status.progress = view.actual.importing.get(wanted.id, 0)
            resource.status.SetInParent()
        else:
            resource.status.size, resource.status.format, resource.status.progress = image.size, image.format, 100


def importing(percent: int) -> str:
    """What goes on while a template is imported."""
    return f"{percent} % imported"


def _plan_gone(view: View, wanted: Template, image: Image | None) -> Verdict:
    if wanted.id in view.actual.importing:
        return Verdict((StopImport(wanted),))
    if image is None:
        return Verdict(waits=away) if (away := why_unseen(view, wanted.pool)) else GONE
    if image.pool != wanted.pool:
        return Verdict(fails=f"its file lies in pool {image.pool}")
    # A backing file may be named by any path that ends with this name; no other file has it.
    standing = [other.id for other in view.actual.images.values() if image.file in other.backing]
    if standing:
        return Verdict(waits=f"{len(standing)} volumes that stand on it: {', '.join(sorted(standing)[:3])}")
    templates = view.desired.of(Template)
    for other in view.actual.images.values():
        if other.broken and other.pool == image.pool and other.id not in templates:
            return Verdict(waits=f"file {other.pool}/{other.file}, which may stand on it: {other.broken}")
    if user := view.actual.disk_user(image.disk_key):
        return Verdict(waits=f"domain {user.name}, which has it open")
    return Verdict((RemoveTemplate(wanted, image),))
