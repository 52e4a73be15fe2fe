"""The command `kaktus`."""

import argparse
from pathlib import Path

from agent_kaktus.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="kaktus", description="Runs the instances of a host.")
    parser.add_argument("--config", type=Path, help="a TOML file; KAKTUS_... in the environment override it")
    try:
        settings = Settings.load(parser.parse_args().config)
    except (ValueError, OSError) as why:
        parser.exit(1, f"kaktus: {why}\n")

    from agent_kaktus.worker import KaktusWorker  # late: --help needs no libvirt
    from kowa.runtime.agent import serve

    serve(
        KaktusWorker(settings),
        name="kaktus",
        version=settings.version,
        server=settings.server,
        ca=settings.ca,
        token=settings.token,
        state=settings.state,
    )


if __name__ == "__main__":
    main()
