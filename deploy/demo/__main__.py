"""`python -m deploy.demo up | status | logs | down | leftovers`. Run as root: `make` sees to it."""

import argparse
import os
import subprocess
import sys
from collections import deque

from deploy.demo import leftovers, site
from deploy.demo.house import House

LINES = 30


def main() -> None:
    """Does what the command says."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("command", choices=["up", "status", "logs", "down", "leftovers"])
    command = parser.parse_args().command
    house = House()
    if os.geteuid() != 0:
        sys.exit(f"demo: needs root for bridges and libvirt: run `sudo make {command}`")
    {"up": up, "status": status, "logs": logs, "down": down, "leftovers": compare}[command](house)


def up(house: House) -> None:
    """Brings it up."""
    from deploy.demo.up import up as bring_up

    bring_up(house)


def status(house: House) -> None:
    """What runs, and what the API says."""
    running = {daemon.name: daemon.pids() for daemon in site.all_daemons(house)}
    for name, pids in running.items():
        print(f"{name:<10} {'pid ' + ', '.join(map(str, pids)) if pids else 'not running'}")
    if running["kahuna"] and running["gateway"]:
        from deploy.demo.up import connect, report

        report(house, connect(house))


def logs(house: House) -> None:
    """The end of each log."""
    for log in sorted(house.logs.glob("*.log")):
        print(f"== {log}")
        with log.open(errors="replace") as lines:
            sys.stdout.writelines(deque(lines, LINES))


def down(house: House) -> None:
    """Ends everything and removes what is outside the checkout. The data below .demo stays."""
    if not house.root.exists():
        return
    for daemon in site.all_daemons(house):
        if daemon.stop():
            print(f"{daemon.name} stopped")
        if daemon.name == "guests":
            site.delete_devices(house)
    subprocess.run(["sync", "-f", str(house.root)], check=False)


def compare(house: House) -> None:
    """Exits 1 when something is left."""
    left = leftovers.compare(house)
    if left:
        print("\n".join(left))
        sys.exit(1)
    print("nothing is left")


if __name__ == "__main__":
    main()
