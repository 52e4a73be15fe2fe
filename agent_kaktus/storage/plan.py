"""What pools, templates and volumes need. Pure."""

from agent_kaktus.actual import Image
from agent_kaktus.desired import Pool, Template, Volume
from agent_kaktus.steps import (
    CreateVolume,
    GrowVolume,
    ImportTemplate,
    MakePool,
    RecordVolume,
    RemovePool,
    RemoveTemplate,
    RemoveVolume,
    StopImport,
)
from agent_kaktus.view import AS_WANTED, GONE, Verdict, View
from kowa import sizes


def pool(view: View, wanted: Pool) -> Verdict:
    seen = wanted.id in view.actual.pools
    made = wanted.id in view.actual.made
    if wanted.gone:
        return _gone_pool(view, wanted)
    if not wanted.is_directory:
        return Verdict(fails="this agent serves pools in a directory only")
    if seen and made:
        return AS_WANTED
    if made:
        return Verdict(fails=f"its directory {view.site.pools / wanted.id} is missing; mount or restore it")
    return Verdict((MakePool(wanted),))


def _gone_pool(view: View, wanted: Pool) -> Verdict:
    held = [image.id for image in view.actual.images.values() if image.pool == wanted.id]
    if held:
        return Verdict(waits=f"{len(held)} images in it: {', '.join(sorted(held)[:3])}")
    templates = view.desired.templates
    coming = [id_ for id_ in view.memory.importing if id_ in templates and templates[id_].pool == wanted.id]
    if coming:
        return Verdict(waits=f"{len(coming)} imports into it")
    if wanted.id in view.actual.pools or wanted.id in view.actual.made:
        return Verdict((RemovePool(wanted),))
    return GONE


def template(view: View, wanted: Template) -> Verdict:
    image = view.actual.images.get(wanted.id)
    if wanted.gone:
        return _gone_template(view, wanted, image)
    if blocked := _why_not_in(view, wanted.pool):
        return Verdict(waits=blocked)
    if wanted.id in view.memory.importing:
        return Verdict(works=f"{view.memory.importing[wanted.id]} % imported")
    if image is None:
        return Verdict((ImportTemplate(wanted),))
    if image.pool != wanted.pool:
        return _elsewhere(image)
    return Verdict(fails=image.broken) if image.broken else AS_WANTED


def _gone_template(view: View, wanted: Template, image: Image | None) -> Verdict:
    if wanted.id in view.memory.importing:
        return Verdict((StopImport(wanted),))
    if image is None:
        return Verdict(waits=away) if (away := _why_unseen(view, wanted.pool)) else GONE
    if image.pool != wanted.pool:
        return _elsewhere(image)
    # By whatever path it is named: no other file has this name.
    standing = [other.id for other in view.actual.images.values() if image.file in other.backing]
    if standing:
        return Verdict(waits=f"{len(standing)} volumes that stand on it: {', '.join(sorted(standing)[:3])}")
    for other in view.actual.images.values():
        if other.broken and other.pool == image.pool and other.id not in view.desired.templates:
            return Verdict(waits=f"file {other.pool}/{other.file}, which may stand on it: {other.broken}")
    if user := view.actual.user(str(view.site.pools / image.pool / image.file)):
        return Verdict(waits=f"domain {user.name}, which has it open")
    return Verdict((RemoveTemplate(wanted, image),))


def volume(view: View, wanted: Volume) -> Verdict:
    image = view.actual.images.get(wanted.id)
    if wanted.gone:
        return _gone_volume(view, wanted, image)
    if blocked := _why_not_in(view, wanted.pool):
        return Verdict(waits=blocked)
    if image is None:
        return _new_volume(view, wanted)
    if image.pool != wanted.pool:
        return _elsewhere(image)
    if image.broken:
        return Verdict(fails=image.broken)
    if wanted.id not in view.actual.made:
        return Verdict((RecordVolume(wanted),))
    if image.size > wanted.size:
        has, asked = sizes.in_words(image.size, wanted.size)
        return Verdict(fails=f"it has {has} and never shrinks to {asked}")
    if image.size < wanted.size:
        return Verdict((GrowVolume(wanted, _user(view, wanted)),))
    return AS_WANTED


def _new_volume(view: View, wanted: Volume) -> Verdict:
    if wanted.id in view.actual.made:
        path = view.site.volume(wanted.pool, wanted.id)
        return Verdict(fails=f"its file {path} is missing and never made anew; restore it or delete the volume")
    if not wanted.template:
        return Verdict((CreateVolume(wanted, None),))
    origin = view.desired.templates.get(wanted.template)
    if origin is None or origin.gone:
        return Verdict(waits=f"template {wanted.template}")
    image = view.actual.images.get(origin.id)
    if image is None:
        why = view.memory.why_given_up(origin)
        return Verdict(waits=f"template {origin.name}" + (f", which failed: {why}" if why else ""))
    if image.pool != wanted.pool:
        return Verdict(fails=f"template {origin.name} lies in another pool")
    if image.broken:
        return Verdict(fails=f"template {origin.name}: {image.broken}")
    if image.size > wanted.size:
        needs, has = sizes.in_words(image.size, wanted.size)
        return Verdict(fails=f"template {origin.name} needs {needs}, the volume has {has}; make it larger")
    return Verdict((CreateVolume(wanted, image),))


def _gone_volume(view: View, wanted: Volume, image: Image | None) -> Verdict:
    if image is None:
        if away := _why_unseen(view, wanted.pool):
            return Verdict(waits=away)
        return Verdict((RemoveVolume(wanted, wanted.pool),)) if wanted.id in view.actual.made else GONE
    if image.pool != wanted.pool:
        return _elsewhere(image)
    if user := view.actual.user(str(view.site.volume(image.pool, wanted.id))):
        return Verdict(waits=f"domain {user.name}, whose disk it is")
    return Verdict((RemoveVolume(wanted, image.pool),))


def why_no_disk(view: View, wanted: Volume) -> str:
    """Why a machine can't have a volume as its disk; empty if it can."""
    image = view.actual.images.get(wanted.id)
    if image is None or image.broken or image.pool != wanted.pool or wanted.id not in view.actual.made:
        verdict = volume(view, wanted)
        return f"volume {wanted.name}" + (f", which failed: {verdict.fails}" if verdict.fails else "")
    return ""


def _user(view: View, wanted: Volume) -> str:
    user = view.actual.user(str(view.site.volume(wanted.pool, wanted.id)))
    return user.id if user and user.is_on else ""


def _why_not_in(view: View, id_: str) -> str:
    home = view.desired.pools.get(id_)
    if home is None or home.gone:
        return f"storage pool {id_}"
    return "" if id_ in view.actual.pools and id_ in view.actual.made else f"storage pool {home.name}"


def _why_unseen(view: View, id_: str) -> str:
    """Why the absence of a file proves nothing: its pool is away."""
    missing = id_ in view.actual.made and id_ not in view.actual.pools
    return f"storage pool {id_}, which is missing" if missing else ""


def _elsewhere(image: Image) -> Verdict:
    return Verdict(fails=f"its file lies in pool {image.pool}")
