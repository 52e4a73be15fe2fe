"""`python -m tests.assignments [NAME...]`: searches all groups, and what each lack of a rule leads to; or those named.

`python -m tests.assignments --traces` writes traces.txt anew.
"""

import sys
import time

from tests.assignments.catalogue import GROUPS, LACKS, TRACES, Lack, run


def main(names: list[str]) -> int:
    """Prints each search. Returns 1 if one found what it should not, or not what it should."""
    searches: dict[str, tuple[str, Lack | None]] = {group: (group, None) for group in GROUPS}
    searches |= {title: (lack.group, lack) for title, lack in LACKS.items()}
    wrong = 0
    for title, (group, lack) in searches.items():
        if names and not any(name in title for name in names):
            continue
        began = time.process_time()
        result = run(group, lack)
        used = f"{result.worlds} worlds, {time.process_time() - began:.1f} s"
        expected = lack.violation if lack else ""
        good = result.violation.startswith(expected) and bool(result.violation) == bool(expected)
        wrong += not good
        found = f"{result.violation.partition(':')[0]}, in {len(result.trace)} steps" if result.violation else "nothing"
        print(f"{'' if good else 'WRONG: '}{title} [{group}]: {used}: {found}")
        if not good:
            print(result.violation)
        for number, words in enumerate(result.trace, 1):
            print(f"    {number:2} {words}")
        sys.stdout.flush()
    print(f"{wrong} searches found what they should not")
    return 1 if wrong else 0


def write_traces() -> None:
    """Writes the shortest traces that lead to a twin or a lost disk."""
    parts = []
    for title, lack in LACKS.items():
        result = run(lack.group, lack)
        if lack.violation in ("never two", "disk safe"):
            parts.append("\n".join([f"{title}: {result.violation}", *(f"    {words}" for words in result.trace)]))
    TRACES.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--traces"]:
        write_traces()
    else:
        sys.exit(main(sys.argv[1:]))
