"""The kinds of resources, independent of gRPC. Each file has a kind's table, rules, verbs and the agents it reaches."""

from importlib import import_module
from pkgutil import iter_modules

# Importing a kind's file registers it: no other list of kinds exists.
for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
