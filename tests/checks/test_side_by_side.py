"""`make test` runs its suites side by side: whatever fails in one of them fails it, is shown, and is counted."""

from pathlib import Path

import pytest

from tests import side_by_side

PASSES = "def test_one(): pass\ndef test_two(): pass\n"
FAILS = "def test_three(): assert 'apples' == 'pears'\n"
BREAKS_OFF = "import os\ndef test_four(): os._exit(3)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suites", "code", "shown", "last"),
    [
        ([PASSES], 0, [], "2 passed, 0 failed, 0 skipped"),
        ([PASSES, FAILS], 1, ["assert 'apples' == 'pears'"], "2 passed, 1 failed, 0 skipped"),
        ([PASSES, BREAKS_OFF], 1, ["crashed"], "2 passed, 1 failed, 0 skipped"),
        (["def helper(): pass\n"], 0, [], "0 passed, 0 failed, 0 skipped"),
    ],
)
def test_what_fails_in_one_fails_all_is_shown_and_is_counted(
    suites: list[str],
    code: int,
    shown: list[str],
    last: str,
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
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # they sum up by themselves, whoever runs this
    with pytest.raises(SystemExit) as ended:
        side_by_side.main()
    output = capsys.readouterr().out
    assert ended.value.code == code
    assert output.splitlines()[-1] == last
    assert all(text in output for text in shown)


def test_whatever_is_not_named_is_run_with_the_others() -> None:
    named = [path for paths in side_by_side.LONG.values() for path in paths]
    assert len(named) == len(set(named))
    assert all((side_by_side.ROOT / path).exists() for path in named)
    assert set(side_by_side.OTHERS) >= {"tests", *(f"--ignore={path}" for path in named)}
