"""Values from files and from stdin are sent unchanged, or refused with a remedy."""

import gzip
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import WEB, Kowactl, process
from tests.fake_kahuna import KEY, FakeKahuna
from tests.ssh_keys import ED25519, PRIVATE

SOME_ID = "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"
CREATE = (
    *("instance", "create", "--no-wait", "--project", SOME_ID, "--zone", SOME_ID, "--name", "web"),
    *("--vcpus", "1", "--memory", "1G", "--volumes", SOME_ID),
)

TEXTS = [
    "#cloud-config\n",
    "#!/bin/sh\r\necho hello\r\n",
    "old\rmac\r",
    "no end",
    "\n\n  spaces around  \n\n",
    "tab\t é 😀 \u2028 \x85\x0b\x0c",
    "a byte order mark \ufeff inside",
    "",
]


@pytest.mark.usefixtures("wanted_instance")
def test_user_data_from_a_file_is_sent_unchanged(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    file = tmp_path / "init"
    for text in TEXTS:
        file.write_bytes(text.encode())
        changed = kowactl("instance", "update", "web", "--user-data", f"@{file}", "-o", "json")
        assert changed.code == 0, changed.err
        assert json.loads(changed.out)["user_data"] == text


@pytest.mark.usefixtures("wanted_instance")
def test_user_data_survives_output_and_input_as_a_file(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    file = tmp_path / "web"
    for text in TEXTS:
        for form in ("json", "yaml"):
            file.write_bytes(json.dumps({"user_data": text}).encode())
            file.write_text(kowactl("instance", "update", "web", "--from-file", str(file), "-o", form).out)
            again = kowactl("instance", "update", "web", "--from-file", str(file), "-o", "json")
            assert json.loads(again.out)["user_data"] == text


UNREADABLE = [
    # the file's content, the message
    (b"\xef\xbb\xbf#cloud-config\n", "it begins with a byte order mark; save it as UTF-8 without one"),
    ("#cloud-config\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
    ("#cloud-config\n".encode("utf-16-le"), "it holds NUL bytes, as no text does; save it as UTF-8"),
    (b"\xfe\xff\0#", "it is UTF-16; save it as UTF-8"),
    (gzip.compress(b"#cloud-config\n"), "it is compressed; give it uncompressed"),
    (b"BZh91AY&SY\xff", "it is not UTF-8"),
    ("é".encode("latin-1"), "it is not UTF-8"),
    (b"\x7fELF\x02\x01\xff", "it is not UTF-8"),
    (b"x" * ((4 << 20) + 1), "it is larger than 4 MiB"),
]


@pytest.fixture
def kowactl_to_fake(run_command: Kowactl, fake_kahuna: FakeKahuna, monkeypatch: pytest.MonkeyPatch) -> Kowactl:
    """Runs kowactl for a fake Kahuna, which records the calls."""
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", fake_kahuna.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    return partial(run_command, "--insecure")


def requested(fake_kahuna: FakeKahuna) -> Any:
    """The instance in the create request."""
    (request,) = (request for name, request, _ in fake_kahuna.calls if name == "CreateInstance")
    return getattr(request, "instance")  # noqa: B009 - the request is untyped


@pytest.mark.parametrize(("content", "message"), UNREADABLE, ids=[row[1] for row in UNREADABLE])
def test_user_data_that_is_not_utf8_text_is_refused(
    kowactl_to_fake: Kowactl, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "init"
    file.write_bytes(content)
    refused = kowactl_to_fake(*CREATE, "--user-data", f"@{file}")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"can't read {file}: {message}" in refused.err


def test_an_endless_file_is_refused(kowactl_to_fake: Kowactl) -> None:
    for arguments in (["--user-data", "@/dev/zero"], ["--from-file", "/dev/zero"]):
        assert "it is larger than 4 MiB" in kowactl_to_fake(*CREATE, *arguments).err


@pytest.mark.usefixtures("kowactl_to_fake")
def test_values_are_read_from_stdin(fake_kahuna: FakeKahuna) -> None:
    for arguments, value in (
        (["--description", "x", "--user-data", "@-"], b"#!/bin/sh\r\n"),
        (["--description", "x", "--user-data", "@/dev/stdin"], b"#!/bin/sh\r\n"),
        (["--from-file", "-"], b'\xef\xbb\xbf{"description": "x", "user_data": "#!/bin/sh\\r\\n"}\r\n'),
    ):
        with process(*CREATE, *arguments, stdin=subprocess.PIPE) as process_:
            process_.communicate(value.decode())
        assert requested(fake_kahuna).user_data == "#!/bin/sh\r\n"
        fake_kahuna.calls.clear()


@pytest.mark.usefixtures("kowactl_to_fake")
def test_reading_stdin_twice_is_refused(fake_kahuna: FakeKahuna) -> None:
    for arguments in (["--user-data", "@-", "--ssh-keys", "@-"], ["--from-file", "-", "--user-data", "@-"]):
        with process(*CREATE, *arguments, stdin=subprocess.PIPE) as process_:
            _, stderr = process_.communicate('{"description": "x"}')
        assert (process_.returncode, stderr.count("\n")) == (2, 1)
        assert "stdin is read already" in stderr
    assert not fake_kahuna.calls


def test_a_closed_stdin_is_refused_only_if_it_is_read(kowactl_to_fake: Kowactl) -> None:
    assert kowactl_to_fake("instance", "list").code == 0
    command = f"{sys.executable} -m kowactl.main --insecure {' '.join(CREATE)} --user-data @- <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "can't read -: " in done.stderr


FILE_SPELLINGS = ["init", "./init", "file://init", "fileb://init"]


@pytest.mark.parametrize("written", FILE_SPELLINGS)
def test_a_file_name_in_another_tools_syntax_is_refused(
    kowactl_to_fake: Kowactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "init").write_text("#cloud-config\n")
    monkeypatch.chdir(tmp_path)
    for option in ("--user-data", "--ssh-keys"):
        refused = kowactl_to_fake(*CREATE, option, written)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert f"write @{written.rpartition('//')[2]} for the content of the file" in refused.err


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_public_key_from_a_file_is_sent_without_its_line_end(
    kowactl_to_fake: Kowactl, fake_kahuna: FakeKahuna, tmp_path: Path, end: str
) -> None:
    file = tmp_path / "id.pub"
    file.write_bytes(f"{ED25519} me@example{end}".encode())
    kowactl_to_fake(*CREATE, "--ssh-keys", f"@{file}", "--ssh-keys", ED25519)
    assert list(requested(fake_kahuna).ssh_keys) == [f"{ED25519} me@example", ED25519]


def test_a_private_key_is_refused_and_neither_sent_nor_printed(
    kowactl_to_fake: Kowactl, fake_kahuna: FakeKahuna, tmp_path: Path
) -> None:
    file = tmp_path / "id_ed25519"
    file.write_text(PRIVATE)
    for value in (f"@{file}", PRIVATE):
        refused = kowactl_to_fake(*CREATE, "--ssh-keys", value)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "is a private key; give the public key, in the file whose name ends in .pub" in refused.err
        assert PRIVATE.splitlines()[1] not in refused.err
    document = tmp_path / "web.json"
    document.write_text(json.dumps({"ssh_keys": [ED25519, PRIVATE]}))
    refused = kowactl_to_fake(*CREATE, "--from-file", str(document))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "ssh_keys[1]: is a private key" in refused.err
    assert PRIVATE.splitlines()[1] not in refused.err
    assert not fake_kahuna.calls


DUPLICATES = [
    # the file's content, the duplicate field
    (b'{"name": "eu", "name": "us"}', "name"),
    (b"name: eu\nname: us\n", "name"),
    (b"name: eu\nmeta:\n  etag: a\n  etag: b\n", "etag"),
]


@pytest.mark.parametrize(("content", "field"), DUPLICATES)
def test_a_duplicate_field_in_a_file_is_refused(
    kowactl_to_fake: Kowactl, tmp_path: Path, content: bytes, field: str
) -> None:
    file = tmp_path / "region"
    file.write_bytes(content)
    refused = kowactl_to_fake("region", "create", "--from-file", str(file))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"{field} is given twice" in refused.err
