"""Agent tokens: drawn here, shown once, kept as a keyed hash."""

from google.protobuf.message import Message

from kahuna.api.service import Context, StandardMethods
from kahuna.security import keys
from kahuna.store.transaction import Transaction
from kowa import contract
from kowa.v2 import agent_token_pb2


class AgentTokenService(StandardMethods):
    """What agents sign in with. Deleting one ends the sessions it opened."""

    kind = "AgentToken"

    async def create(
        self, request: agent_token_pb2.CreateAgentTokenRequest, context: Context, method: contract.Method
    ) -> Message:
        """A new token. What a plan would draw opens nothing, so it is not shown."""
        token = await super().create(request, context, method)
        if request.validate_only:
            token.ClearField("secret")
        return token

    def insert(self, tx: Transaction, resource: agent_token_pb2.AgentToken) -> Message:
        """Draws the secret; only this answer holds it."""
        key = keys.draw(keys.AGENT)
        resource.prefix = key.prefix
        token = tx.add(self.kind, resource, sealed=self.sealer.seal(key.text))
        assert isinstance(token, agent_token_pb2.AgentToken)
        token.secret = key.text
        return token
