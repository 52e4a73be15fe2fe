"""Templates: images that volumes are created from."""

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
        """Checks that the source is a URL or a file name. The agent's configuration decides whether it may be read."""
        try:
            sources.parse(resource.source)
        except ValueError as error:
            raise invalid("source", str(error)) from error
