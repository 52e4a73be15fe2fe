"""What an instance has printed: kept, but not more than was promised."""

from pathlib import Path

from agent_kaktus.compute import console

from .slices import id_of


def test_a_history_keeps_its_end_and_no_older_parts(tmp_path: Path) -> None:
    folder = tmp_path / id_of("web")
    folder.mkdir()
    (folder / "seed.iso").write_bytes(b"seed")
    (folder / "console.log").write_bytes(b"old" + bytes(console.MAX_HISTORY_BYTES) + b"new")
    for older in ("console.log.0", "console.log.1"):
        (folder / older).write_bytes(bytes(2 * console.MAX_HISTORY_BYTES))
    console.trim_all(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"console.log", "seed.iso"}
    assert (folder / "console.log").stat().st_size == console.KEPT_BYTES
    assert (folder / "console.log").read_bytes().endswith(b"new")
