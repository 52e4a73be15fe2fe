"""Netlink for links, addresses and routes: that part of pyroute2, whose package would import 4 MB more for nothing."""

import importlib.util
import sys
import types
from importlib import import_module
from typing import Any

_WHOLE, _PART = "pyroute2", "pyroute2.iproute.linux"


def _load() -> Any:
    """The part, without what the package runs when it is imported; who imports that afterwards gets it as ever."""
    spec = importlib.util.find_spec(_WHOLE)
    if _WHOLE not in sys.modules and spec is not None:
        package = types.ModuleType(_WHOLE)
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[_WHOLE] = package
        try:
            import_module(_PART)
        finally:
            del sys.modules[_WHOLE]
    return import_module(_PART)


IPRoute: Any = _load().IPRoute
NetlinkError: type[Any] = import_module("pyroute2.netlink.exceptions").NetlinkError
