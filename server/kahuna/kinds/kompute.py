"""Komputes: instances with their disks and adapters, created, changed and deleted as one."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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

# In the order in which they are deleted: the others belong to the instance.
_PARTS = (instance_pb2.Instance, volume_pb2.Volume, adapter_pb2.Adapter)
_OF_INSTANCE = ("name", "description", "vcpus", "memory", "user_data", "metadata", "ssh_keys")
# Fields of each part that follow its kompute.
_FOLLOWED: Mapping[str, tuple[str, ...]] = {"Instance": _OF_INSTANCE, "Volume": ("name", "size"), "Adapter": ("name",)}
# The kompute's field for a refusal that names none.
_FIELD_OF_REASON = {"NAME_TAKEN": "name", "NO_ADDRESS": "subnet", "NO_SPACE": "size"}


class Kompute(Resource, table=True):
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    region_id: str | None = Field(default=None, foreign_key="region.id", index=True)
    zone_id: str | None = Field(default=None, foreign_key="zone.id", index=True)
    template_id: str = Field(foreign_key="template.id", index=True)


class Komputes(Kind[kompute_pb2.Kompute], table=Kompute):
    """Creates, changes and deletes the parts of komputes; only the fields in _FOLLOWED follow the kompute."""

    def before_create(self, tx: Transaction, resource: kompute_pb2.Kompute) -> None:
        """Fills in the region of the zone."""
        resource.region = region_of(tx, resource)

    def before_update(self, tx: Transaction, before: kompute_pb2.Kompute, after: kompute_pb2.Kompute) -> None:
        """Refuses to add or remove the data disk: an instance keeps the volumes it was created with."""
        if bool(before.data_disk) != bool(after.data_disk):
            raise invalid("data_disk", "can't be added or taken away; create another kompute")

    def after_create(self, tx: Transaction, cause: Cause, resource: kompute_pb2.Kompute) -> None:
        """Creates the parts, with the same checks as for any client."""
        pool = tx.one(template_pb2.Template, resource.template).storage_pool
        ids: dict[str, list[str]] = defaultdict(list)
        for role, part in _wanted(resource, pool).items():
            if isinstance(part, instance_pb2.Instance):
                part.volumes.extend(ids["Volume"])
                part.adapters.extend(ids["Adapter"])
            kind = part.DESCRIPTOR.name
            with _refused_as_kompute(role, no_host="zone" if resource.zone else "region"):
                its_cause = cause._replace(method=f"Create{kind}")
                outcome = self.kinds[kind].create(tx, its_cause, part, whole=resource.meta.id)
            ids[kind].append(meta(outcome.resource).id)
        self._report(tx, resource)

    def after_update(
        self, tx: Transaction, cause: Cause, before: kompute_pb2.Kompute, after: kompute_pb2.Kompute
    ) -> None:
        """Updates the parts whose fields differ from the kompute."""
        for part in self._parts(tx, after.meta.id):
            kind, role = part.DESCRIPTOR.name, _role(part)
            wanted = _wanted(after)[role]
            paths = [field for field in _FOLLOWED[kind] if getattr(part, field) != getattr(wanted, field)]
            if paths:
                meta(wanted).id = meta(part).id
                with _refused_as_kompute(role):
                    self.kinds[kind].update(tx, cause._replace(method=f"Update{kind}"), wanted, paths)
        self._report(tx, after)

    def delete(self, tx: Transaction, cause: Cause, id_: str, etag: str = "") -> Outcome[kompute_pb2.Kompute]:
        """Marks the kompute and its parts; its row is removed after theirs."""
        outcome = super().delete(tx, cause, id_, etag)
        for part in self._parts(tx, id_):
            if not meta(part).HasField("delete_time"):
                kind = part.DESCRIPTOR.name
                self.kinds[kind].delete(tx, cause._replace(method=f"Delete{kind}"), meta(part).id)
        return outcome

    def before_part_update(self, whole: kompute_pb2.Kompute, before: Message, after: Message) -> None:
        """Refuses to change a followed field of a part, except to the value in its kompute."""
        role = _role(before)
        wanted = _wanted(whole)[role]
        for field in _FOLLOWED[after.DESCRIPTOR.name]:
            if getattr(after, field) not in (getattr(before, field), getattr(wanted, field)):
                reason = f"is as kompute {whole.name} says, of which this is a part"
                raise on_field("IN_USE", field, f"{reason}; change its {_kompute_field(role, field)}")

    def after_part_report(self, tx: Transaction, id_: str) -> None:
        """Updates the kompute and its operations from the state of its parts."""
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
        """Stores the status derived from a kompute's parts: READY when all are, ERROR when one has been given up."""
        head, parts = kompute.meta, list(self._parts(tx, kompute.meta.id))
        phases = {lifecycle.phase(meta(part).generation, meta(part)) for part in parts}
        ready = phases == {operation_pb2.PHASE_DONE}
        if operation_pb2.PHASE_FAILED in phases or ready:
            head.observed_generation = head.generation
        failed = any(meta(part).state == meta_pb2.STATE_ERROR for part in parts)
        state = meta_pb2.STATE_UNSPECIFIED if ready else meta_pb2.STATE_PENDING
        head.state = meta_pb2.STATE_ERROR if failed else state
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
    """Returns the wanted parts of a kompute by role (the suffix of their names), in the order of their creation."""
    name, project = kompute.name, kompute.project
    disk = volume_pb2.Volume(project=project, storage_pool=pool, template=kompute.template, size=kompute.disk)
    parts: dict[str, volume_pb2.Volume | adapter_pb2.Adapter] = {"os": disk}
    if kompute.data_disk:
        parts["data"] = volume_pb2.Volume(project=project, storage_pool=pool, size=kompute.data_disk)
    for index, wanted in enumerate(kompute.adapters):
        parts[f"eth{index}"] = adapter_pb2.Adapter(project=project, subnet=wanted.subnet, address=wanted.address)
    for role, part in parts.items():
        part.name = f"{name}-{role}"
    fields = {field: getattr(kompute, field) for field in ("project", "region", "zone", *_OF_INSTANCE)}
    return {**parts, "": instance_pb2.Instance(**fields)}


def _role(part: Message) -> str:
    """The role of a part: the suffix of its name, empty for the instance."""
    return "" if isinstance(part, instance_pb2.Instance) else str(getattr(part, "name", "")).rpartition("-")[2]


def _kompute_field(role: str, field: str) -> str:
    """Returns the field of a kompute that a part's field comes from."""
    if role.startswith("eth") and field in ("subnet", "address"):
        return f"adapters[{role.removeprefix('eth')}].{field}"
    if field.startswith("adapters["):
        return f"{field}.subnet"
    if field.startswith(("volumes[", "storage_pool")):
        return "template"
    return {"os": "disk", "data": "data_disk"}.get(role, field) if field == "size" else field


@contextmanager
def _refused_as_kompute(role: str, no_host: str = "") -> Iterator[None]:
    """Turns a part's refusal into one on the kompute's fields."""
    try:
        yield
    except Refusal as refusal:
        field = (_FIELD_OF_REASON | {"NO_HOST": no_host}).get(refusal.reason)
        found = refusal.violations or ([Violation(field, refusal.message)] if field else ())
        if not found:
            raise
        violations = [Violation(_kompute_field(role, wrong.field), wrong.description) for wrong in found]
        raise on_fields(refusal.reason, violations, refusal.details) from refusal
