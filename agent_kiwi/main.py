"""The command `kiwi`."""

import argparse
from pathlib import Path

from agent_kiwi.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="kiwi", description="Runs the networks of a region.")
    parser.add_argument("--config", type=Path, help="a TOML file; KIWI_... in the environment override it")
    try:
        settings = Settings.load(parser.parse_args().config)
    except (ValueError, OSError) as why:
        parser.exit(1, f"kiwi: {why}\n")

    from agent_kiwi.worker import VERSION, KiwiWorker  # late: --help needs no gRPC
    from kowa.runtime.agent import serve

    serve(
        KiwiWorker(),
        name="kiwi",
        version=VERSION,
        server=settings.server,
        ca=settings.ca,
        token=settings.token,
        state=settings.state,
    )


if __name__ == "__main__":
    main()
