"""Programs with the made-up kinds: `python -m tests.made_up kahuna|kowactl|gateway|pytest ARGUMENTS`."""

import sys
import tempfile
from pathlib import Path

from tests import made_up

made_up.install()


def kahuna() -> None:
    """Kahuna, with a migration for the made-up kinds after the platform's."""
    from kahuna import main
    from tests.made_up import kinds  # noqa: F401 - the import registers them
    from tests.made_up.migration import migrate_with

    with tempfile.TemporaryDirectory() as folder:
        migrate_with(Path(folder))
        main.main()


def kowactl() -> None:
    """kowactl."""
    from kowactl.main import main

    main()


def gateway() -> None:
    """The gateway."""
    from gateway.main import main

    main()


def run_tests() -> None:
    """pytest, in a process whose contract has the made-up kinds from the start."""
    import pytest

    sys.exit(pytest.main())


if __name__ == "__main__":
    program = {"kahuna": kahuna, "kowactl": kowactl, "gateway": gateway, "pytest": run_tests}[sys.argv.pop(1)]
    program()
