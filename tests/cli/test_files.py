"""What kowactl takes from files and from stdin arrives as it stands there, or is refused with what helps."""

import gzip
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import WEB, Kowactl, process
from tests.fake_kahuna import KEY, Fake
from tests.ssh_keys import ED25519, PRIVATE

SOME_ID = "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"
CREATE = (
    *("instance", "create", "--no-wait", "--project", SOME_ID, "--zone", SOME_ID, "--name", "web"),
    *("--vcpus", "1", "--memory", "1G", "--volumes", SOME_ID),
)

EXACT = [
    "#cloud-config\n",
    "#!/bin/sh\r\necho hello\r\n",
    "old\rmac\r",
    "no end",
    "\n\n  spaces around  \n\n",
    "tab\t é 😀 \u2028 \x85\x0b\x0c",
    "a mark \ufeff inside",
    "",
]


@pytest.mark.usefixtures("shop")
def test_user_data_is_what_stands_in_the_file(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    file = tmp_path / "init"
    for text in EXACT:
        file.write_bytes(text.encode())
        changed = kowactl("instance", "update", "web", "--user-data", f"@{file}", "-o", "json")
        assert changed.code == 0, changed.err
        assert json.loads(changed.out)["user_data"] == text


@pytest.mark.usefixtures("shop")
def test_what_was_read_is_sent_back_as_it_was(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    file = tmp_path / "web"
    for text in EXACT:
        for form in ("json", "yaml"):
            file.write_bytes(json.dumps({"user_data": text}).encode())
            file.write_text(kowactl("instance", "update", "web", "--from-file", str(file), "-o", form).out)
            again = kowactl("instance", "update", "web", "--from-file", str(file), "-o", "json")
            assert json.loads(again.out)["user_data"] == text


OPAQUE = [
    # what the file holds                               what is said of it
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
def pretended(bare: Kowactl, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Kowactl:
    """kowactl before a Kahuna that only remembers what it is asked."""
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    return partial(bare, "--insecure")


def asked(fake: Fake) -> Any:
    """The machine that was asked for."""
    (request,) = (request for name, request, _ in fake.calls if name == "CreateInstance")
    return getattr(request, "instance")  # noqa: B009 - its type is not said


@pytest.mark.parametrize(("content", "says"), OPAQUE, ids=[row[1] for row in OPAQUE])
def test_what_no_guest_could_read_is_refused(pretended: Kowactl, tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "init"
    file.write_bytes(content)
    refused = pretended(*CREATE, "--user-data", f"@{file}")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"can't read {file}: {says}" in refused.err


def test_a_file_without_end_is_refused(pretended: Kowactl) -> None:
    for words in (["--user-data", "@/dev/zero"], ["--from-file", "/dev/zero"]):
        assert "it is larger than 4 MiB" in pretended(*CREATE, *words).err


@pytest.mark.usefixtures("pretended")
def test_stdin_is_a_file_too(fake: Fake) -> None:
    for words, given in (
        (["--description", "x", "--user-data", "@-"], b"#!/bin/sh\r\n"),
        (["--description", "x", "--user-data", "@/dev/stdin"], b"#!/bin/sh\r\n"),
        (["--from-file", "-"], b'\xef\xbb\xbf{"description": "x", "user_data": "#!/bin/sh\\r\\n"}\r\n'),
    ):
        with process(*CREATE, *words, stdin=subprocess.PIPE) as asking:
            asking.communicate(given.decode())
        assert asked(fake).user_data == "#!/bin/sh\r\n"
        fake.calls.clear()


@pytest.mark.usefixtures("pretended")
def test_stdin_is_read_once(fake: Fake) -> None:
    for words in (["--user-data", "@-", "--ssh-keys", "@-"], ["--from-file", "-", "--user-data", "@-"]):
        with process(*CREATE, *words, stdin=subprocess.PIPE) as asking:
            _, stderr = asking.communicate('{"description": "x"}')
        assert (asking.returncode, stderr.count("\n")) == (2, 1)
        assert "stdin is read already" in stderr
    assert not fake.calls


def test_no_stdin_at_all(pretended: Kowactl) -> None:
    assert pretended("instance", "list").code == 0
    command = f"{sys.executable} -m kowactl.main --insecure {' '.join(CREATE)} --user-data @- <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "can't read -: " in done.stderr


MEANT_AS_FILES = ["init", "./init", "file://init", "fileb://init"]


@pytest.mark.parametrize("written", MEANT_AS_FILES)
def test_a_file_named_as_elsewhere_is_not_taken_for_the_text(
    pretended: Kowactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "init").write_text("#cloud-config\n")
    monkeypatch.chdir(tmp_path)
    for option in ("--user-data", "--ssh-keys"):
        refused = pretended(*CREATE, option, written)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert f"write @{written.rpartition('//')[2]} for the content of the file" in refused.err


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_public_key_from_a_file_is_its_line(pretended: Kowactl, fake: Fake, tmp_path: Path, end: str) -> None:
    file = tmp_path / "id.pub"
    file.write_bytes(f"{ED25519} me@example{end}".encode())
    pretended(*CREATE, "--ssh-keys", f"@{file}", "--ssh-keys", ED25519)
    assert list(asked(fake).ssh_keys) == [f"{ED25519} me@example", ED25519]


def test_a_private_key_stays_at_home(pretended: Kowactl, fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "id_ed25519"
    file.write_text(PRIVATE)
    for given in (f"@{file}", PRIVATE):
        refused = pretended(*CREATE, "--ssh-keys", given)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "is a private key; give the public key, in the file whose name ends in .pub" in refused.err
        assert PRIVATE.splitlines()[1] not in refused.err
    document = tmp_path / "web.json"
    document.write_text(json.dumps({"ssh_keys": [ED25519, PRIVATE]}))
    refused = pretended(*CREATE, "--from-file", str(document))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "ssh_keys[1]: is a private key" in refused.err
    assert PRIVATE.splitlines()[1] not in refused.err
    assert not fake.calls


TWICE = [
    # what the file holds                       the field
    (b'{"name": "eu", "name": "us"}', "name"),
    (b"name: eu\nname: us\n", "name"),
    (b"name: eu\nmeta:\n  etag: a\n  etag: b\n", "etag"),
]


@pytest.mark.parametrize(("content", "field"), TWICE)
def test_a_field_twice_in_a_file_is_refused(pretended: Kowactl, tmp_path: Path, content: bytes, field: str) -> None:
    file = tmp_path / "region"
    file.write_bytes(content)
    refused = pretended("region", "create", "--from-file", str(file))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"{field} is given twice" in refused.err
