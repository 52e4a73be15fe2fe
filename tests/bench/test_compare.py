"""What a comparison of two commits shows, from what the bench of each prints."""

from bench.compare import rows, table
from bench.figure import HEADER, at_least, at_most

BEFORE = [at_most("kowactl --help, whole process", 100, "ms", 200, 50), at_least("Get, 1 at once", 1000, "/s", 500)]


def test_rows_are_read_as_they_are_printed() -> None:
    expected = [(row.name, row.value, row.more_is_better) for row in rows("\n".join([HEADER, *map(str, BEFORE)]))]
    assert expected == [("kowactl --help, whole process", 100.0, False), ("Get, 1 at once", 1000.0, True)]


def test_what_became_worse_by_more_than_five_percent_is_flagged() -> None:
    table_of = {
        (104, 960): ["1.040   0.520", "0.960       -"],
        (106, 960): ["1.060   0.530  MAX_RATIO", "0.960       -"],
        (50, 940): ["0.500   0.250", "0.940       -  MAX_RATIO"],
    }
    before = list(rows("\n".join(map(str, BEFORE))))
    for (help_ms, gets), expected in table_of.items():
        measured = (
            at_most("kowactl --help, whole process", help_ms, "ms", 200, 100),
            at_least("Get, 1 at once", gets, "/s", 1),
        )
        lines, worse = table(before, list(rows("\n".join(map(str, measured)))))
        assert [line[64:].strip() for line in lines[1:]] == expected
        assert worse == any("MAX_RATIO" in line for line in expected)


def test_medians_count_and_what_is_new_is_shown() -> None:
    before = [row for value in (90, 100, 300) for row in rows(str(at_most("help", value, "ms", 200)))]
    after = [*rows(str(at_most("help", 101, "ms", 200))), *rows(str(at_most("echo", 7, "ms", 60)))]
    lines, worse = table(before, after)
    assert [line.split() for line in lines[1:]] == [["help", "100", "101", "1.010", "-"], ["echo", "-", "7", "-", "-"]]
    assert not worse
