"""Programs that know the made-up kinds: `python -m tests.made_up kahuna|kowactl|gateway ARGUMENTS`."""

import sys

from tests import made_up

made_up.install()


def kahuna() -> None:
    """Serves, with tables for the made-up kinds beside those that migrations make."""
    from sqlalchemy import Engine
    from sqlmodel import SQLModel

    import kahuna.kinds  # noqa: F401 - the platform's kinds
    from kahuna import main, serve
    from kahuna.store.schema import migrate
    from tests.made_up import kinds  # noqa: F401 - and these

    def migrate_and_create(engine: Engine) -> None:
        migrate(engine)
        SQLModel.metadata.create_all(engine)

    vars(serve)["migrate"] = migrate_and_create
    main.main()


def kowactl() -> None:
    """The command."""
    from kowactl.main import main

    main()


def gateway() -> None:
    """An Envoy and its configuration."""
    from gateway.main import main

    main()


if __name__ == "__main__":
    program = {"kahuna": kahuna, "kowactl": kowactl, "gateway": gateway}[sys.argv.pop(1)]
    program()
