"""The `kahuna` command: `serve`, and `admin-key` to draw the platform owner's key."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs Kahuna. Exits 2 with one line when the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="kahuna", description="Kowabunga's orchestrator.")
    parser.add_argument("--config", type=Path, help="a TOML file; KAHUNA_* in the environment goes over it")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run until told to stop (SIGTERM)")
    key = commands.add_parser("admin-key", help="draw the admin key anew; older ones stop working at the next start")
    key.add_argument("--out", type=Path, required=True, help="the file to write it to (mode 0600)")
    parsed = parser.parse_args(arguments)

    from pydantic import ValidationError

    from kahuna.settings import Settings

    try:
        configured = Settings.load(parsed.config)
    except (ValidationError, OSError) as error:
        sys.exit(f"kahuna: {error}")
    os.umask(0o077)
    configured.state.mkdir(parents=True, exist_ok=True)
    if parsed.command == "serve":
        from kahuna.serve import run

        run(configured)
    else:
        from kahuna.admin_key import draw

        draw(configured, parsed.out)


if __name__ == "__main__":
    main()
