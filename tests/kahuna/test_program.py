"""The `kahuna` program: what it says of a wrong configuration, and the files it leaves alone."""

from pathlib import Path

import pytest

from kahuna.main import main


def test_an_unreadable_variable_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAHUNA_STATE", str(tmp_path))
    monkeypatch.setenv("KAHUNA_NAMES", "kahuna.example.net")
    with pytest.raises(SystemExit, match=r"kahuna: KAHUNA_NAMES can't be read: .*; write a JSON list such as \["):
        main(["audit"])


def test_a_new_admin_key_replaces_that_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAHUNA_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("KAHUNA_NAMES", raising=False)
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("admin.key", "admin.key.new", "admin.key.part"):
        (folder / name).write_text("a user's own")
    main(["admin-key", "--out", str(folder / "admin.key")])
    assert sorted(file.name for file in folder.iterdir()) == ["admin.key", "admin.key.new", "admin.key.part"]
    assert (folder / "admin.key").read_text().startswith("kowa_admin_")
    assert {(folder / name).read_text() for name in ("admin.key.new", "admin.key.part")} == {"a user's own"}
