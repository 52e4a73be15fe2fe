"""Compares what `make bench` measures between two commits, in runs that take turns.

Each commit gets a checkout of its own with its own .venv, in FOLDER, and is measured by its own bench. For each row it
prints the medians before and after and their ratio, flags a row that became more than 5 % worse, and then exits with 1.
The last column is the ratio after each run's figure was divided by its own floor: when the two ratios differ much, the
machine was busy with something else.
A run of all benches takes some minutes: choose benches with --bench and rows with --rows.

    .venv/bin/python -m bench.compare 35ba30d HEAD
    .venv/bin/python -m bench.compare 35ba30d HEAD --bench get --rows 'REST|Get, 1 at once' --runs 3
"""

import argparse
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import ALL

ROOT = Path(__file__).resolve().parents[1]
MAX_RATIO = 1.05  # times the figure before
# A row as `python -m bench` prints it: its name, in 44 characters at least, the value, the floor and the ratio to it if
# there is one, and at the end the promise.
ROW = re.compile(r"(?P<name>.{44,}?) +(?P<value>\d\S*) +(?:(?P<floor>\d\S*) +\d\S* +)?\D.*(?P<promise><=|>=) \S+ \S+$")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one run."""

    name: str
    value: float
    floor: float | None
    more_is_better: bool


def rows(output: str) -> Iterator[Row]:
    """The rows in the output of a bench."""
    for line in output.splitlines():
        if found := ROW.match(line):
            floor = float(found["floor"]) if found["floor"] else None
            yield Row(found["name"].strip(), float(found["value"]), floor, found["promise"] == ">=")


class Checkout:
    """A commit's own clone, prepared."""

    def __init__(self, commit: str, folder: Path) -> None:
        self.name = commit
        sha = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
        self.folder = folder / sha[:12]
        if not self.folder.exists():
            _git("clone", "--quiet", str(ROOT), str(self.folder))
        _git("-C", str(self.folder), "checkout", "--quiet", "--detach", sha)
        images = ROOT / ".cache" / "guest"
        if images.is_dir():
            shutil.copytree(images, self.folder / ".cache" / "guest", dirs_exist_ok=True)
        subprocess.run([self.folder / "deploy" / "setup"], check=True, stdout=sys.stderr)

    def measure(self, benches: Sequence[str]) -> Iterator[Row]:
        """Runs those of the benches that this commit has. A demo that they started is stopped again."""
        known = [bench for bench in benches if (self.folder / "bench" / f"{bench}.py").exists()]
        if not known:
            return
        command = [str(self.folder / ".venv/bin/python"), "-m", "bench", *known]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, text=True, check=False)
        found = list(rows(done.stdout))
        subprocess.run(["make", "-s", "down"], cwd=self.folder, check=True, stdout=sys.stderr)
        # It exits with 1 also when a promise is missed.
        if done.returncode not in (0, 1) or not found:
            raise SystemExit(f"compare: {shlex.join(command)} ended with {done.returncode}")
        yield from found


def table(before: Sequence[Row], after: Sequence[Row]) -> tuple[list[str], bool]:
    """The lines of the table, and whether a figure became worse, from the rows of all runs."""
    lines, worse = [f"{'figure':<44} {'before':>9} {'after':>9} {'ratio':>7} {'/floor':>7}"], False
    for name in dict.fromkeys(row.name for row in (*before, *after)):
        old, new = medians = [_median(row.value for row in found if row.name == name) for found in (before, after)]
        floors = [
            _median(row.value / row.floor for row in found if row.name == name and row.floor)
            for found in (before, after)
        ]
        shown = " ".join(f"{'-' if median is None else f'{median:.4g}':>9}" for median in medians)
        if old is None or new is None or not old:
            lines.append(f"{name:<44} {shown} {'-':>7} {'-':>7}")
            continue
        more_is_better = next(row.more_is_better for row in after if row.name == name)
        is_worse = (old / new if more_is_better and new else new / old) > MAX_RATIO
        worse = worse or is_worse
        of_floor = f"{floors[1] / floors[0]:.3f}" if floors[0] and floors[1] else "-"
        lines.append(f"{name:<44} {shown} {new / old:>7.3f} {of_floor:>7}{'  MAX_RATIO' if is_worse else ''}")
    return lines, worse


def _median(values: Iterable[float]) -> float | None:
    listed = list(values)
    return statistics.median(listed) if listed else None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"compare: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> None:
    """Prints the table, and exits with 1 when a row became worse."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", help="a commit, for example 35ba30d")
    parser.add_argument("after", help="a commit, for example HEAD")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, taking turns (5)")
    parser.add_argument("--bench", nargs="+", choices=ALL, default=ALL, help="the benches to run (all)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows whose name has this in it (all)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "bench", help="for checkouts (.cache/bench)")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("compare: needs root, as the bench does: run it through sudo")
    sides = [Checkout(commit, chosen.folder) for commit in (chosen.before, chosen.after)]
    found: tuple[list[Row], list[Row]] = ([], [])
    for run in range(chosen.runs):
        # In turns, each first in every other run: other load of the machine then affects both alike.
        for side in (0, 1) if run % 2 == 0 else (1, 0):
            print(f"run {run + 1} of {chosen.runs}: {sides[side].name}", file=sys.stderr, flush=True)
            found[side].extend(row for row in sides[side].measure(chosen.bench) if re.search(chosen.rows, row.name))
    lines, worse = table(*found)
    print("\n".join(lines))
    sys.exit(worse)


if __name__ == "__main__":
    main()
