"""The command `kaktus`."""

import argparse
import sys
from pathlib import Path

from agent_kaktus.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="kaktus", description="Runs the machines of a host.")
    parser.add_argument("--config", type=Path, help="a TOML file; KAKTUS_... in the environment override it")
    settings = Settings.load(parser.parse_args().config)

    # structlog would import it, to colour what an agent never shows.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

    from agent_kaktus.worker import VERSION, Kaktus  # late: --help needs no libvirt
    from kowa.runtime.agent import serve

    serve(
        Kaktus(settings),
        name="kaktus",
        version=VERSION,
        server=settings.server,
        ca=settings.ca,
        token=settings.token,
        state=settings.state,
    )


if __name__ == "__main__":
    main()
