"""Agent tokens: generated here, shown once, stored as a keyed hash."""

from sqlmodel import Field

from kahuna.kinds.kind import Kind
from kahuna.security import keys
from kahuna.store.resource import Resource
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_token_pb2


class AgentToken(Resource, table=True):
    """Keys that agents sign in with; `secret` is the keyed hash."""

    agent_id: str = Field(foreign_key="agent.id", index=True)
    name: str
    prefix: str = Field(index=True, unique=True)


class AgentTokens(Kind[agent_token_pb2.AgentToken], table=AgentToken):
    """Generates the keys that agents sign in with. Deleting one ends the sessions it opened."""

    def add_row(self, tx: Transaction, resource: agent_token_pb2.AgentToken) -> agent_token_pb2.AgentToken:
        """Generates the secret, which only this answer contains."""
        key = keys.generate(keys.AGENT)
        resource.prefix = keys.prefix_of(key)
        token = tx.add(self.name, resource, secret=self.platform.hasher.hash(key))
        token.secret = key
        return token

    def redact_plan(self, resource: agent_token_pb2.AgentToken) -> None:
        """Hides the secret of a plan, which is not stored and so opens nothing."""
        resource.ClearField("secret")
