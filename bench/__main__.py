"""`python -m bench [NAME ...]`: prints each figure with its floor when measured. Exits 1 when a promise is missed."""

import importlib
import sys

from bench.figure import HEADER

ALL = ("process", "get", "commit_to_ack", "adversary", "create", "console")


def main() -> None:
    """Runs the named benches; default: all."""
    missed = False
    print(HEADER)
    for name in sys.argv[1:] or ALL:
        for figure in importlib.import_module(f"bench.{name}").figures():
            print(figure, flush=True)
            missed = missed or not figure.keeps
    sys.exit(missed)


if __name__ == "__main__":
    main()
