"""Templates."""

import re
from urllib.parse import urlsplit

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import invalid
from kahuna.store.transaction import Transaction
from kowa.v2 import template_pb2

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")


class TemplateService(StandardMethods):
    """Images that volumes are made from; the agent imports them."""

    kind = "Template"

    def admit(self, tx: Transaction, resource: template_pb2.Template) -> None:
        """The source is a URL or a plain file name; which of them may be read, the agent's configuration says."""
        if "://" not in resource.source:
            if not _FILE.fullmatch(resource.source):
                raise invalid("source", "is neither an http(s) URL nor a plain file name without slashes")
            return
        try:
            url = urlsplit(resource.source)
            host = url.hostname
        except ValueError:
            host = None
        if not host or url.scheme not in ("http", "https"):
            raise invalid("source", "must be an http or https URL with a host")
        if url.username or url.password:
            raise invalid("source", "may hold no user name or password: it is shown to whoever may read the template")
