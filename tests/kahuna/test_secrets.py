"""Kahuna's keys and certificates on disk, also after Kahuna was killed while writing them."""

import ssl
from pathlib import Path

import pytest

from kahuna.security import certificates
from kahuna.security.keys import KeyHasher


def can_be_loaded(files: certificates.Certificates) -> bool:
    """Whether a server can load them, so that key and certificate belong together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    except ssl.SSLError:
        return False
    return True


def test_certificates_are_kept_until_the_names_change(tmp_path: Path) -> None:
    first = certificates.ensure(tmp_path, ["localhost"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert can_be_loaded(certificates.ensure(tmp_path, ["localhost"]))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    certificates.ensure(tmp_path, ["localhost", "10.0.0.1"])
    assert first.certificate.read_bytes() != before[first.certificate]
    assert first.ca.read_bytes() == before[first.ca]
    assert {f"{path.stat().st_mode & 0o777:o}" for path in tmp_path.glob("*.key")} == {"600"}


def test_a_key_without_its_certificate_is_replaced_with_both(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    files, other = (certificates.ensure(folder, ["localhost"]) for folder in (here, elsewhere))
    files.key.write_bytes(other.key.read_bytes())
    assert not can_be_loaded(files)
    assert can_be_loaded(certificates.ensure(here, ["localhost"]))


def test_an_interrupted_write_of_the_secret_leaves_none_and_the_next_start_generates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.key"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            KeyHasher.from_file(path)
    key_hash = KeyHasher.from_file(path).hash("a key")
    assert KeyHasher.from_file(path).matches("a key", key_hash)
