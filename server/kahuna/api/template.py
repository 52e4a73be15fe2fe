"""Templates."""

import re
from urllib.parse import urlsplit

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import invalid
from kahuna.store.transaction import Transaction
from kowa.v2 import template_pb2

_ONE_WORD = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")
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
        if not _ONE_WORD.fullmatch(resource.source):
            raise invalid("source", "may hold no spaces or control characters; write them as %20 and so on")
        try:
            url = urlsplit(resource.source)
            served = url.hostname and url.port != 0
        except ValueError:
            served = False
        if not served or url.scheme not in ("http", "https"):
            raise invalid("source", "must be an http or https URL with a host and, if any, a port from 1 to 65535")
        if "@" in url.netloc:
            raise invalid("source", "may hold no user name or password: it is shown to whoever may read the template")
