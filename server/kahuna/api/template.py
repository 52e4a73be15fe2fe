"""Templates."""

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import invalid
from kahuna.store.transaction import Transaction
from kowa import sources
from kowa.v2 import template_pb2


class TemplateService(StandardMethods):
    """Images that volumes are made from; the agent imports them."""

    kind = "Template"

    def admit(self, tx: Transaction, resource: template_pb2.Template) -> None:
        """The source is a URL or a plain file name; which of them may be read, the agent's configuration says."""
        try:
            sources.parse(resource.source)
        except ValueError as why:
            raise invalid("source", str(why)) from why
