"""`make test` runs its suites side by side; a failure in any of them fails it, is printed, and is counted."""

from pathlib import Path

import pytest

from tests import side_by_side

PASSES = "def test_one(): pass\ndef test_two(): pass\n"
FAILS = "def test_three(): assert 'apples' == 'pears'\n"
CRASHES = "import os\ndef test_four(): os._exit(3)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suites", "code", "printed", "last_line"),
    [
        ([PASSES], 0, [], "2 passed, 0 failed, 0 skipped"),
        ([PASSES, FAILS], 1, ["assert 'apples' == 'pears'"], "2 passed, 1 failed, 0 skipped"),
        ([PASSES, CRASHES], 1, ["crashed"], "2 passed, 1 failed, 0 skipped"),
        (["def helper(): pass\n"], 0, [], "0 passed, 0 failed, 0 skipped"),
    ],
)
def test_a_failing_suite_fails_the_run_and_is_printed_and_counted(
    suites: list[str],
    code: int,
    printed: list[str],
    last_line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [tmp_path / f"test_{number}.py" for number in range(len(suites))]
    for file, text in zip(files, suites, strict=True):
        file.write_text(text)
    monkeypatch.setattr(side_by_side, "LONG", {file.name: [str(file)] for file in files[1:]})
    monkeypatch.setattr(side_by_side, "OTHERS", [str(files[0])])
    monkeypatch.setattr("sys.argv", ["side_by_side", "-p", "tests.conftest"])
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # so that the inner runs print a summary under xdist too
    with pytest.raises(SystemExit) as ended:
        side_by_side.main()
    output = capsys.readouterr().out
    assert ended.value.code == code
    assert output.splitlines()[-1] == last_line
    assert all(text in output for text in printed)


def test_files_without_a_run_of_their_own_are_run_with_the_others() -> None:
    named = [path for paths in side_by_side.LONG.values() for path in paths]
    assert len(named) == len(set(named))
    assert all((side_by_side.ROOT / path).exists() for path in named)
    assert set(side_by_side.OTHERS) >= {"tests", *(f"--ignore={path}" for path in named)}
