"""The kinds of resources, one file each: its table, its rules and verbs on a transaction, whom it reaches. No wire."""

from importlib import import_module
from pkgutil import iter_modules

# A kind is known by its file: nothing else lists it.
for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
