"""The `kahuna` command: `serve`, and for maintenance `admin-key`, `audit`, `restored`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs Kahuna. Exits with the reason when the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="kahuna", description="Kowabunga's orchestrator.")
    parser.add_argument("--config", type=Path, help="a TOML file; KAHUNA_* in the environment overrides it")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run until SIGTERM")
    key = commands.add_parser("admin-key", help="generate a new admin key; older ones stop working at the next start")
    key.add_argument("--out", type=Path, required=True, help="the file to write it to (mode 0600)")
    trail = commands.add_parser("audit", help="print who changed what and why, oldest first, one JSON object a line")
    trail.add_argument("--target", default="", help="only changes of the resource with this id")
    trail.add_argument("--days", type=int, default=30, help="how many days to go back (default: 30)")
    restored = "run after the database was restored from a backup, with Kahuna stopped: agents get everything again"
    commands.add_parser("restored", help=restored)
    parsed = parser.parse_args(arguments)

    from kahuna.settings import Settings

    try:
        configured = Settings.load(parsed.config)
    except (ValueError, OSError) as error:
        sys.exit(f"kahuna: {error}")
    os.umask(0o077)
    configured.state.mkdir(parents=True, exist_ok=True)
    if parsed.command == "serve":
        from kahuna.serve import run

        run(configured)
        return

    from kahuna import maintenance

    match parsed.command:
        case "admin-key":
            maintenance.generate_admin_key(configured, parsed.out)
        case "audit":
            maintenance.show_audit_trail(configured, parsed.target, parsed.days)
        case "restored":
            maintenance.start_new_incarnation(configured)


if __name__ == "__main__":
    main()
