"""Templates: images that volumes are created from, imported into a pool once."""

from dataclasses import dataclass

from agent_kaktus.actual import Image
from agent_kaktus.kind import Kind, View
from agent_kaktus.storage.storage_pool import why_no_pool, why_pool_unseen
from kowa import formats
from kowa.runtime.desired import DesiredObject, Identity
from kowa.runtime.verdict import AS_WANTED, GONE, Step, Verdict
from kowa.v2 import template_pb2


@dataclass(frozen=True, slots=True)
class Template(DesiredObject):
    pool: str
    source: str
    sha256: str

    @property
    def references(self) -> tuple[str, ...]:
        return (self.pool,)


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
        if reason := why_no_pool(view, wanted.pool):
            return Verdict(waits=reason)
        if wanted.id in view.actual.importing:
            return Verdict(working=importing(view.actual.importing[wanted.id]))
        if image is None:
            return Verdict((Step("import", wanted.name, lambda host: host.imports.start(wanted)),))
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
    """The message while a template is imported."""
    return f"{percent} % imported"


def _plan_gone(view: View, wanted: Template, image: Image | None) -> Verdict:
    if wanted.id in view.actual.importing:
        return Verdict((Step("stop importing", wanted.name, lambda host: host.imports.stop(wanted.id)),))
    if image is None:
        return Verdict(waits=reason) if (reason := why_pool_unseen(view, wanted.pool)) else GONE
    if image.pool != wanted.pool:
        return Verdict(fails=f"its file lies in pool {image.pool}")
    # A volume may name its backing file by any path with this file name, which is unique.
    volumes = [other.id for other in view.actual.images.values() if image.file in other.backing]
    if volumes:
        return Verdict(waits=f"{len(volumes)} volumes that stand on it: {', '.join(sorted(volumes)[:3])}")
    templates = view.desired.of(Template)
    for other in view.actual.images.values():
        if other.broken and other.pool == image.pool and other.id not in templates:
            return Verdict(waits=f"file {other.pool}/{other.file}, which may stand on it: {other.broken}")
    if user := view.actual.disk_user(image.disk_key):
        return Verdict(waits=f"domain {user.name}, which has it open")
    return Verdict((Step("remove template", wanted.name, lambda host: host.storage.remove(image.pool, wanted.id)),))
