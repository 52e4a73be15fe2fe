"""The command `kaktus`."""

import argparse
import sys
from functools import partial
from pathlib import Path

from agent_kaktus.told import Told
from kowa.runtime.aside import aside


def main() -> None:
    parser = argparse.ArgumentParser(prog="kaktus", description="Runs the machines of a host.")
    parser.add_argument("--config", type=Path, help="a TOML file; KAKTUS_... in the environment override it")
    told = read(parser.parse_args().config)

    # structlog would import it, to colour what an agent never shows.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

    from agent_kaktus.worker import Kaktus  # late: --help needs no libvirt
    from kowa.runtime.agent import serve

    serve(
        Kaktus(told),
        name="kaktus",
        version=told.version,
        server=told.server,
        ca=told.ca,
        token=told.token,
        state=told.state,
    )


def read(config: Path | None) -> Told:
    """Aside: what reads it would hold 12 MB for as long as the agent runs."""
    return aside(partial(_read, config))


def _read(config: Path | None) -> Told:
    from agent_kaktus.settings import Settings

    return Settings.load(config).told()


if __name__ == "__main__":
    main()
