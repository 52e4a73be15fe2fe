"""Agent tokens: drawn here, shown once, kept as a keyed hash."""

from google.protobuf.message import Message

from kahuna.api.service import StandardMethods
from kahuna.security import keys
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_token_pb2


class AgentTokenService(StandardMethods):
    """What agents sign in with. Deleting one ends the sessions it opened."""

    kind = "AgentToken"

    def insert(self, tx: Transaction, resource: agent_token_pb2.AgentToken) -> Message:
        """Draws the secret; only this answer holds it."""
        key = keys.draw(keys.AGENT)
        resource.prefix = key.prefix
        token = tx.add(self.kind, resource, sealed=self.sealer.seal(key.text))
        assert isinstance(token, agent_token_pb2.AgentToken)
        token.secret = key.text
        return token
