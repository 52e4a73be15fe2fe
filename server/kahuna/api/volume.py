"""Volumes."""

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import Refusal, invalid
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa import sizes
from kowa.v2 import template_pb2, volume_pb2


class VolumeService(StandardMethods):
    """Disks: they grow, never shrink, and one machine at most holds one."""

    kind = "Volume"

    def admit(self, tx: Transaction, resource: volume_pb2.Volume) -> None:
        """A template lies in the same pool and is no larger."""
        if not resource.template:
            return
        template = tx.find("Template", resource.template)
        assert isinstance(template, template_pb2.Template)
        if template.storage_pool != resource.storage_pool:
            raise invalid("template", f"template {template.name} lies in another pool; import it into the volume's")
        if resource.size < template.status.size:
            asked, needed = sizes.in_words(resource.size, template.status.size)
            raise invalid("size", f"{asked} is less than the {needed} of template {template.name}")

    def amend(self, tx: Transaction, before: volume_pb2.Volume, after: volume_pb2.Volume) -> None:
        """Only growth."""
        if after.size < before.size:
            has, asked = sizes.in_words(before.size, after.size)
            raise invalid("size", f"a volume never shrinks: it has {has}, {asked} asked")

    def release(self, tx: Transaction, resource: volume_pb2.Volume) -> None:
        """A volume that a machine holds stays."""
        refuse_while_held(tx, "volume", resource.name, resource.instance)


def refuse_while_held(tx: Transaction, noun: str, name: str, instance: str) -> None:
    """Raises Refusal IN_USE while a machine that stays holds a volume or an adapter."""
    machine = tx.find("Instance", instance) if instance else None
    if machine is not None and not meta(machine).HasField("delete_time"):
        held_by = getattr(machine, "name", instance)
        raise Refusal("IN_USE", f"{noun} {name} belongs to instance {held_by}; delete the instance first")
