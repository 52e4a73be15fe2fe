"""Templates: images that volumes are made from."""

from sqlmodel import Field

from kahuna.domain.errors import invalid
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource, unique_unless_deleted
from kahuna.store.transaction import Transaction
from kowa import sources
from kowa.v2 import template_pb2


class Template(Resource, table=True):
    """Templates of a pool."""

    storage_pool_id: str = Field(foreign_key="storagepool.id", index=True)
    name: str

    __table_args__ = (unique_unless_deleted("storage_pool_id", "name"),)
    reaches = ("storage_pool.kaktus.agent",)


class Templates(Kind[template_pb2.Template], table=Template):
    """Images that volumes are made from; the agent imports them."""

    def before_create(self, tx: Transaction, resource: template_pb2.Template) -> None:
        """The source is a URL or a plain file name; which of them may be read, the agent's configuration says."""
        try:
            sources.parse(resource.source)
        except ValueError as why:
            raise invalid("source", str(why)) from why
