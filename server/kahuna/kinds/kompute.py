"""Komputes: machines with their disks and adapters, made, changed and deleted as one."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from google.protobuf.message import Message
from sqlmodel import Field

from kahuna.domain import lifecycle
from kahuna.domain.errors import Refusal, Violation, invalid, on_field, on_fields
from kahuna.kinds import tracking
from kahuna.kinds.instance import region_of
from kahuna.kinds.kind import Kind, Outcome
from kahuna.kinds.tracking import Cause
from kahuna.store.resource import Resource, meta
from kahuna.store.transaction import Transaction
from kowa.v2 import adapter_pb2, instance_pb2, kompute_pb2, meta_pb2, operation_pb2, template_pb2, volume_pb2

# In the order in which they are deleted: an instance holds the others.
_PARTS = (instance_pb2.Instance, volume_pb2.Volume, adapter_pb2.Adapter)
_OF_INSTANCE = ("name", "description", "vcpus", "memory", "user_data", "metadata", "ssh_keys")
# What a part has as its kompute says, for as long as it is one.
_FOLLOWED: Mapping[str, tuple[str, ...]] = {"Instance": _OF_INSTANCE, "Volume": ("name", "size"), "Adapter": ("name",)}
# What a refusal that names no field is about.
_ABOUT = {"NAME_TAKEN": "name", "NO_ADDRESS": "subnet", "NO_SPACE": "size"}


class Kompute(Resource, table=True):
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    region_id: str | None = Field(default=None, foreign_key="region.id", index=True)
    zone_id: str | None = Field(default=None, foreign_key="zone.id", index=True)
    template_id: str = Field(foreign_key="template.id", index=True)


class Komputes(Kind[kompute_pb2.Kompute], table=Kompute):
    """Instances, volumes and adapters that follow what their kompute says; whatever else counts is theirs."""

    def before_create(self, tx: Transaction, resource: kompute_pb2.Kompute) -> None:
        """Its region is its zone's unless given."""
        resource.region = region_of(tx, resource)

    def before_update(self, tx: Transaction, before: kompute_pb2.Kompute, after: kompute_pb2.Kompute) -> None:
        """An instance keeps the volumes it was made with."""
        if bool(before.data_disk) != bool(after.data_disk):
            raise invalid("data_disk", "can't be added or taken away; create another kompute")

    def after_create(self, tx: Transaction, cause: Cause, resource: kompute_pb2.Kompute) -> None:
        """Creates the parts, each as anybody would."""
        pool = tx.one(template_pb2.Template, resource.template).storage_pool
        ids: dict[str, list[str]] = defaultdict(list)
        for role, part in _wanted(resource, pool).items():
            if isinstance(part, instance_pb2.Instance):
                part.volumes.extend(ids["Volume"])
                part.adapters.extend(ids["Adapter"])
            kind = part.DESCRIPTOR.name
            with _refused_as_kompute(role, no_host="zone" if resource.zone else "region"):
                its_cause = replace(cause, method=f"Create{kind}")
                made = self.kinds[kind].create(tx, its_cause, part, whole=resource.meta.id)
            ids[kind].append(meta(made.resource).id)
        self._report(tx, resource)

    def after_update(
        self, tx: Transaction, cause: Cause, before: kompute_pb2.Kompute, after: kompute_pb2.Kompute
    ) -> None:
        """Changes the parts that don't follow yet."""
        for part in self._parts(tx, after.meta.id):
            kind, role = part.DESCRIPTOR.name, _role(part)
            wanted = _wanted(after)[role]
            paths = [field for field in _FOLLOWED[kind] if getattr(part, field) != getattr(wanted, field)]
            if paths:
                meta(wanted).id = meta(part).id
                with _refused_as_kompute(role):
                    self.kinds[kind].update(tx, replace(cause, method=f"Update{kind}"), wanted, paths)
        self._report(tx, after)

    def delete(self, tx: Transaction, cause: Cause, id_: str, etag: str = "") -> Outcome[kompute_pb2.Kompute]:
        """Marks it and its parts; the row goes after theirs."""
        outcome = super().delete(tx, cause, id_, etag)
        for part in self._parts(tx, id_):
            if not meta(part).HasField("delete_time"):
                kind = part.DESCRIPTOR.name
                self.kinds[kind].delete(tx, replace(cause, method=f"Delete{kind}"), meta(part).id)
        return outcome

    def before_part_update(self, whole: kompute_pb2.Kompute, before: Message, after: Message) -> None:
        """A part follows its kompute, which says so first when it changes one."""
        role = _role(before)
        wanted = _wanted(whole)[role]
        for field in _FOLLOWED[after.DESCRIPTOR.name]:
            if getattr(after, field) not in (getattr(before, field), getattr(wanted, field)):
                reason = f"is as kompute {whole.name} says, of which this is a part"
                raise on_field("IN_USE", field, f"{reason}; change its {_in_kompute(role, field)}")

    def after_part_report(self, tx: Transaction, id_: str) -> None:
        """It stands where its parts stand, and so do its operations."""
        kompute = tx.one(kompute_pb2.Kompute, id_)
        found = (tracking.open_operations(tx, meta(part).id) for part in self._report(tx, kompute))
        under_way = [operation for operations in found for operation in operations if not operation.command]
        failed = [condition.message for condition in kompute.meta.conditions if condition.type == "Failed"]
        tracking.advance(
            tx,
            kompute,
            next(filter(None, [*failed, *(operation.message for operation in under_way)]), ""),
            waiting=any(operation.phase == operation_pb2.PHASE_WAITING for operation in under_way),
            progress=min((operation.progress for operation in under_way), default=0),
        )

    def _report(self, tx: Transaction, kompute: kompute_pb2.Kompute) -> list[Message]:
        """Stores what is seen of a kompute's parts: READY when all are, ERROR when one has been given up."""
        head, parts = kompute.meta, list(self._parts(tx, kompute.meta.id))
        phases = {lifecycle.phase(meta(part).generation, meta(part)) for part in parts}
        if operation_pb2.PHASE_FAILED in phases or phases == {operation_pb2.PHASE_DONE}:
            head.observed_generation = head.generation
        failed = any(meta(part).state == meta_pb2.STATE_ERROR for part in parts)
        head.state = meta_pb2.STATE_ERROR if failed else meta_pb2.STATE_UNSPECIFIED
        del head.conditions[:]
        kompute.ClearField("status")
        addresses = {meta(part).id: part.address for part in parts if isinstance(part, adapter_pb2.Adapter)}
        for part in parts:
            for condition in meta(part).conditions:
                noun = self.kinds[part.DESCRIPTOR.name].described.command
                head.conditions.add().CopyFrom(condition)
                head.conditions[-1].message = f"{noun} {getattr(part, 'name', '')}: {condition.message}"
            if isinstance(part, instance_pb2.Instance):
                kompute.status.power, kompute.status.restarts = part.status.power, part.status.restarts
                kompute.status.addresses.extend(addresses[id_] for id_ in part.adapters if id_ in addresses)
        kompute.CopyFrom(tx.report(self.name, kompute))
        return parts

    def _parts(self, tx: Transaction, id_: str) -> Iterator[Message]:
        for kind in _PARTS:
            yield from tx.each(kind, "kompute", id_)


def _wanted(kompute: kompute_pb2.Kompute, pool: str = "") -> dict[str, Message]:
    """The parts as a kompute wants them, by what stands behind its name in theirs, in the order of their making."""
    name, project = kompute.name, kompute.project
    disk = volume_pb2.Volume(project=project, storage_pool=pool, template=kompute.template, size=kompute.disk)
    parts: dict[str, volume_pb2.Volume | adapter_pb2.Adapter] = {"os": disk}
    if kompute.data_disk:
        parts["data"] = volume_pb2.Volume(project=project, storage_pool=pool, size=kompute.data_disk)
    for index, asked in enumerate(kompute.adapters):
        parts[f"eth{index}"] = adapter_pb2.Adapter(project=project, subnet=asked.subnet, address=asked.address)
    for role, part in parts.items():
        part.name = f"{name}-{role}"
    fields = {field: getattr(kompute, field) for field in ("project", "region", "zone", *_OF_INSTANCE)}
    return {**parts, "": instance_pb2.Instance(**fields)}


def _role(part: Message) -> str:
    """What stands behind the kompute's name in a part's."""
    return "" if isinstance(part, instance_pb2.Instance) else str(getattr(part, "name", "")).rpartition("-")[2]


def _in_kompute(role: str, field: str) -> str:
    """What a part's field is called in its kompute."""
    if role.startswith("eth") and field in ("subnet", "address"):
        return f"adapters[{role.removeprefix('eth')}].{field}"
    if field.startswith("adapters["):
        return f"{field}.subnet"
    if field.startswith(("volumes[", "storage_pool")):
        return "template"
    return {"os": "disk", "data": "data_disk"}.get(role, field) if field == "size" else field


@contextmanager
def _refused_as_kompute(role: str, no_host: str = "") -> Iterator[None]:
    """Says what a part refuses of the kompute's fields."""
    try:
        yield
    except Refusal as refusal:
        field = (_ABOUT | {"NO_HOST": no_host}).get(refusal.reason)
        found = refusal.violations or ([Violation(field, refusal.message)] if field else ())
        if not found:
            raise
        violations = [Violation(_in_kompute(role, wrong.field), wrong.description) for wrong in found]
        raise on_fields(refusal.reason, violations, refusal.details) from refusal
