"""Templates: images that volumes are made from."""

from sqlmodel import Field

from kahuna.domain.errors import invalid
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource
from kahuna.store.transaction import Transaction
from kowa import sources
from kowa.v2 import template_pb2


class Template(Resource, table=True):
    storage_pool_id: str = Field(foreign_key="storagepool.id", index=True)
    name: str

    reaches = ("storage_pool.kaktus.agent",)


class Templates(Kind[template_pb2.Template], table=Template):
    def before_create(self, tx: Transaction, resource: template_pb2.Template) -> None:
        """The source is a URL or a plain file name; which of them may be read, the agent's configuration says."""
        try:
            sources.parse(resource.source)
        except ValueError as why:
            raise invalid("source", str(why)) from why
