"""Refusals of kowactl: one line with the reason and a remedy, and an exit code."""

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import WEB, Kowactl, process

REFUSALS = [
    # arguments, exit code, message
    ("region get nowhere", 3, "no region is called 'nowhere'; see: kowactl region list"),
    ("region get 2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10", 3, "no region has the id"),
    ("region list --filter nonsense", 4, "filter: can't be read at 'nonsense'"),
    ("region create --name eu", 5, "another region is called 'eu'; choose another name (NAME_TAKEN)"),
    ("region create", 2, "missing --name; see: kowactl region create --help"),
    ("region update eu", 2, "nothing to change; see: kowactl region update --help"),
    ("region fly", 2, "No such command 'fly'"),
    ("unicorn list", 2, "No such command 'unicorn'"),
    ("instance create --memory 15X", 2, "'15X' is no size, such as 512M, 1.5G or 1073741824"),
    ("instance create --power sideways", 2, "'sideways' is not one of 'running', 'stopped', 'suspended'"),
    ("instance create --vcpus 0", 2, "0 is not in the range 1<=x<=1024"),
    ("instance create --metadata x", 2, "'x' is not NAME=VALUE"),
    ("operation get web", 2, "'web' is not an id, and an operation has no name"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals_are_one_line_and_an_exit_code(kowactl: Kowactl, arguments: str, code: int, message: str) -> None:
    kowactl("region", "create", "--name", "eu")
    refused = kowactl(*arguments.split())
    assert refused.code == code
    assert refused.out == ""
    assert refused.err.startswith("kowactl: ")
    assert message in refused.err
    assert refused.err.count("\n") == 1


def test_arguments_that_are_not_utf8_are_refused(kowactl: Kowactl) -> None:
    for arguments in (
        ["get", "a\udcff"],
        ["list", "--filter", "a\udcff"],
        ["create", "--name", "x", "--reason", "a\udcff"],
    ):
        refused = kowactl("region", *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.endswith("is not UTF-8\n")
        assert refused.err.count("\n") == 1


def test_a_file_with_an_unknown_field_is_refused(kowactl: Kowactl, tmp_path: Path) -> None:
    file = tmp_path / "region.yaml"
    file.write_text("nmae: eu\n")
    refused = kowactl("region", "create", "--from-file", str(file))
    assert (refused.code, refused.err) == (
        2,
        "kowactl: Invalid value for '--from-file': no region has the field nmae; see: kowactl region create --help\n",
    )


NOT_A_RESOURCE = [
    # the file's content, a part of the message
    (b"name: \xff\xfe", "is not UTF-8"),
    (b"meta: 3", "meta"),
    (b"meta: [x]", "meta"),
    (b"name: [eu]", "name"),
    (b"name: .nan", "--from-file"),
    (b"name: .inf", "--from-file"),
    (b"a: &a [*a]\nname: *a", "--from-file"),
    (b"name: &a [*a]", "--from-file"),
    (b"name: {2020-01-01: x, ? [1] : 2}", "--from-file"),
    (b"name: {2020-01-01: x}", "--from-file"),
    (b"? {a: b}\n: c", "--from-file"),
    (b"1: c", "field 1"),
    (b"[" * 5000, "--from-file"),
    (b"- a", "'--from-file': it must hold one resource"),
    (b"\x00", "--from-file"),
]


@pytest.mark.parametrize(
    ("content", "message"), NOT_A_RESOURCE, ids=[row[0][:20].decode("latin-1") for row in NOT_A_RESOURCE]
)
def test_a_file_that_is_not_a_resource_is_refused_in_one_line(
    kowactl: Kowactl, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "region"
    file.write_bytes(content)
    for arguments in (["create"], ["update", "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"]):
        refused = kowactl("region", *arguments, "--from-file", str(file))
        assert (refused.code, refused.out) == (2, "")
        assert message in refused.err
        assert refused.err.count("\n") == 1


def test_a_folder_instead_of_a_file_is_refused(kowactl: Kowactl, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for file in (str(tmp_path), f"/dev/fd/{folder}"):
        refused = kowactl("region", "create", "--from-file", file)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "Is a directory" in refused.err
    os.close(folder)


@pytest.mark.usefixtures("wanted_instance")
def test_a_text_file_that_cannot_be_read_is_refused(kowactl: Kowactl, tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"\xff\xfe")
    for file in (tmp_path / "init", tmp_path, tmp_path / "none"):
        refused = kowactl(*WEB, "--user-data", f"@{file}")
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert f"can't read {file}: " in refused.err


def test_output_to_a_full_disk_fails(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    for arguments in ("region list", "region list -o json", "--help"):
        with Path("/dev/full").open("w") as full, process(*arguments.split(), out=full) as printing:
            _, err = printing.communicate()
        assert (printing.returncode, err) == (1, "kowactl: can't write: No space left on device\n")


def test_characters_outside_the_outputs_encoding_are_escaped(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "мир", "--description", "é 😀")
    for form, reads in (("json", json.loads), ("yaml", yaml.safe_load)):
        with process("region", "get", "мир", "-o", form, PYTHONIOENCODING="latin-1") as narrow:
            out, err = narrow.communicate()
        assert (narrow.returncode, err) == (0, "")
        assert (reads(out)["name"], reads(out)["description"]) == ("мир", "é 😀")
    with process("region", "list", PYTHONIOENCODING="latin-1") as narrow:
        out, err = narrow.communicate()
    assert (narrow.returncode, err) == (0, "")
    assert r"\u043c\u0438\u0440" in out


def test_missing_environment_variables_are_named(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", "")
    assert "set KOWABUNGA_ENDPOINT (or give --endpoint)" in kowactl("region", "list").err
    monkeypatch.setenv("KOWABUNGA_API_KEY", "")
    unset = kowactl("region", "list")
    assert (unset.code, unset.err.count("\n")) == (2, 1)
    assert "set KOWABUNGA_API_KEY" in unset.err


@pytest.mark.slow
def test_a_wrong_key_and_an_unreachable_kahuna_name_their_variables(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOWABUNGA_API_KEY", "wrong")
    denied = kowactl("region", "list")
    assert denied.code == 7
    assert "check KOWABUNGA_API_KEY" in denied.err
    unreachable = kowactl("--endpoint", "127.0.0.1:1", "region", "list")
    assert unreachable.code == 8
    assert "check KOWABUNGA_ENDPOINT" in unreachable.err


def test_white_space_around_a_key_is_ignored(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.environ["KOWABUNGA_API_KEY"]
    monkeypatch.setenv("KOWABUNGA_API_KEY", f" {key}\r\n")
    assert kowactl("region", "list").code == 0
    for wrong in (f"{key}\n{key}", f"{key}é"):
        monkeypatch.setenv("KOWABUNGA_API_KEY", wrong)
        refused = kowactl("region", "list")
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "KOWABUNGA_API_KEY" in refused.err
        assert key not in refused.err


@pytest.mark.parametrize(
    "endpoint", ["http://kahuna.example", "https://kahuna.example/api/v2", "grpc://kahuna.example:1"]
)
def test_an_endpoint_must_be_a_host_and_a_port(kowactl: Kowactl, endpoint: str) -> None:
    refused = kowactl("--endpoint", endpoint, "region", "list")
    assert (refused.code, refused.out) == (2, "")
    assert f"{endpoint} is not an endpoint; write it as HOST:PORT, such as kahuna.example:443" in refused.err


def test_an_endpoint_may_be_written_as_a_grpc_target_or_an_https_url(kowactl: Kowactl) -> None:
    endpoint = os.environ["KOWABUNGA_ENDPOINT"]
    for spelling in (f"ipv4:{endpoint}", f"dns:///{endpoint}", f"https://{endpoint}/", f" {endpoint}\n"):
        assert kowactl("--endpoint", spelling, "region", "list").code == 0
