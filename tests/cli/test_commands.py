"""What someone at a shell may rely on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Kowactl

WEB = (
    *("instance", "create", "--project", "shop", "--name", "web", "--zone", "eu/a"),
    *("--vcpus", "2", "--memory", "1536M", "--volumes", "os"),
)


@pytest.mark.usefixtures("shop")
def test_a_machine_from_names_sizes_and_maps(kowactl: Kowactl) -> None:
    made = json.loads(kowactl(*WEB, "--power", "running", "--metadata", "a=1", "--metadata", "b=x=y", "-o", "json").out)
    assert made["memory"] == str(1536 << 20)
    assert made["power"] == "POWER_RUNNING"
    assert made["metadata"] == {"a": "1", "b": "x=y"}
    assert made["project"] == json.loads(kowactl("project", "get", "shop", "-o", "json").out)["meta"]["id"]
    assert made["volumes"] == [json.loads(kowactl("volume", "get", "shop/os", "-o", "json").out)["meta"]["id"]]


@pytest.mark.usefixtures("shop")
def test_a_table_shows_names_for_ids_and_units_for_bytes(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    assert kowactl("instance", "list").out.splitlines() == [
        "NAME  PROJECT  VCPUS  MEMORY  POWER    KAKTUS  STATE",
        "web   shop     2      1.5G    running  host-1  ready",
    ]


@pytest.mark.usefixtures("shop")
def test_one_resource_shows_all_that_is_set(kowactl: Kowactl) -> None:
    facts = dict(line.split(maxsplit=1) for line in kowactl("volume", "get", "os").out.splitlines())
    assert facts["size"] == "8G"
    assert facts["storage_pool"] == "disks"
    assert facts["meta.state"] == "ready"


def test_output_for_programs(kowactl: Kowactl) -> None:
    for name in ("eu", "us"):
        kowactl("region", "create", "--name", name)
    assert kowactl("region", "list", "--order-by", "name", "-o", "name").out == "eu\nus\n"
    assert [region["name"] for region in json.loads(kowactl("region", "list", "-o", "json").out)].count("eu") == 1
    assert yaml.safe_load(kowactl("region", "get", "eu", "-o", "yaml").out)["name"] == "eu"
    assert kowactl("region", "list", "--filter", 'name = "us"', "-o", "name").out == "us\n"
    assert kowactl("regions", "list", "--order-by", "name desc", "--limit", "1", "-o", "name").out == "us\n"


@pytest.mark.usefixtures("shop")
def test_update_takes_what_is_given_and_clears_what_is_asked(kowactl: Kowactl) -> None:
    kowactl(*WEB, "--metadata", "a=1", "--description", "old")
    changed = json.loads(
        kowactl("instance", "update", "web", "--memory", "4G", "--clear", "metadata", "-o", "json").out
    )
    assert (changed["memory"], changed["metadata"], changed["description"]) == (str(4 << 30), {}, "old")


@pytest.mark.usefixtures("shop")
def test_what_was_read_can_be_edited_and_sent_back(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    file = tmp_path / "web.json"
    file.write_text(kowactl("instance", "get", "web", "-o", "json").out.replace("1610612736", "2G"))
    assert json.loads(kowactl("instance", "update", "web", "--from-file", str(file), "-o", "json").out)[
        "memory"
    ] == str(2 << 30)
    assert kowactl("instance", "delete", "web").code == 0
    again = kowactl("instance", "create", "--name", "again", "--from-file", str(file), "-o", "name")
    assert (again.code, again.out) == (0, "again\n")


@pytest.mark.usefixtures("shop")
def test_long_text_comes_from_a_file(kowactl: Kowactl, tmp_path: Path) -> None:
    (tmp_path / "init").write_text("#cloud-config\n")
    made = json.loads(kowactl(*WEB, "--user-data", f"@{tmp_path / 'init'}", "-o", "json").out)
    assert made["user_data"] == "#cloud-config\n"


@pytest.mark.usefixtures("shop")
def test_custom_verbs_and_why(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    stopped = kowactl("instance", "stop", "web", "--reason", "night", "-o", "json")
    assert json.loads(stopped.out)["status"]["power"] == "POWER_STOPPED"
    (done,) = json.loads(kowactl("operation", "list", "--filter", 'method = "StopInstance"', "-o", "json").out)
    assert done["reason"] == "night"


def test_deletes(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    gone = kowactl("region", "delete", "eu")
    assert (gone.code, gone.out, gone.err) == (0, "", "region eu is gone\n")
    assert kowactl("region", "list", "-o", "name").out == ""


def test_a_secret_is_shown_once(kowactl: Kowactl) -> None:
    kowactl("agent", "create", "--name", "host-1")
    made = kowactl("agent-token", "create", "--agent", "host-1", "--name", "first").out
    facts = dict(line.split(maxsplit=1) for line in made.splitlines())
    assert facts["secret"].startswith(facts["prefix"])
    assert "secret" not in kowactl("agent-token", "get", "host-1/first").out


def test_validate_only_changes_nothing(kowactl: Kowactl) -> None:
    planned = kowactl("region", "create", "--name", "eu", "--validate-only", "-o", "name")
    assert (planned.code, planned.out, planned.err) == (0, "eu\n", "valid; nothing was changed\n")
    assert kowactl("region", "list", "-o", "name").out == ""


def test_a_watch_is_a_line_an_event(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    words = [sys.executable, "-m", "kowactl.main", "--insecure", "region", "watch", "-o", "json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        first, synced = (json.loads(watching.stdout.readline()) for _ in range(2))
        kowactl("region", "delete", "eu")
        removed = json.loads(watching.stdout.readline())
        watching.terminate()
    assert (first["change"], first["region"]["name"]) == ("put", "eu")
    assert (synced["change"], removed["change"], removed["id"]) == ("synced", "removed", first["id"])


@pytest.mark.usefixtures("shop")
def test_a_name_that_is_not_unique(kowactl: Kowactl) -> None:
    ambiguous = kowactl("zone", "get", "a")
    assert ambiguous.code == 2
    assert "'a' is ambiguous" in ambiguous.err
    assert "eu/a (" in ambiguous.err
    assert "us/a (" in ambiguous.err
    assert kowactl("zone", "get", "us/a").code == 0


def test_a_name_may_look_like_an_id(kowactl: Kowactl) -> None:
    for name in ("deadbeef" * 4, "urn:uuid:2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"):
        made = json.loads(kowactl("region", "create", "--name", name, "-o", "json").out)
        assert kowactl("region", "get", name, "-o", "name").out == f"{name}\n"
        assert kowactl("region", "get", made["meta"]["id"].upper(), "-o", "name").out == f"{name}\n"


REFUSALS = [
    # what is typed                                      code  what it says
    ("region get nowhere", 3, "no region is called 'nowhere'; see: kowactl region list"),
    ("region get 2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10", 3, "no region has the id"),
    ("region list --filter nonsense", 4, "filter: can't be read at 'nonsense'"),
    ("region create --name eu", 5, "another region is called 'eu'; choose another name (NAME_TAKEN)"),
    ("region create", 2, "missing --name; see: kowactl region create --help"),
    ("region update eu", 2, "nothing to change; see: kowactl region update --help"),
    ("region fly", 2, "No such command 'fly'"),
    ("unicorn list", 2, "No such command 'unicorn'"),
    ("instance create --memory 15X", 2, "'15X' is not a size, such as 512M or 8G"),
    ("instance create --power sideways", 2, "'sideways' is not one of 'running', 'stopped', 'suspended'"),
    ("instance create --vcpus 0", 2, "0 is not in the range 1<=x<=1024"),
    ("instance create --metadata x", 2, "'x' is not NAME=VALUE"),
    ("operation get web", 2, "'web' is not an id, and a operation has no name"),
]


@pytest.mark.parametrize(("typed", "code", "says"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals_are_one_line_and_an_exit_code(kowactl: Kowactl, typed: str, code: int, says: str) -> None:
    kowactl("region", "create", "--name", "eu")
    refused = kowactl(*typed.split())
    assert refused.code == code
    assert refused.out == ""
    assert refused.err.startswith("kowactl: ")
    assert says in refused.err
    assert refused.err.count("\n") == 1


def test_what_is_typed_and_no_text(kowactl: Kowactl) -> None:
    for words in (
        ["get", "a\udcff"],
        ["list", "--filter", "a\udcff"],
        ["create", "--name", "x", "--reason", "a\udcff"],
    ):
        refused = kowactl("region", *words)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.endswith("is not UTF-8\n")
        assert refused.err.count("\n") == 1


def test_a_file_that_does_not_fit(kowactl: Kowactl, tmp_path: Path) -> None:
    file = tmp_path / "region.yaml"
    file.write_text("nmae: eu\n")
    refused = kowactl("region", "create", "--from-file", str(file))
    assert (refused.code, refused.err) == (
        2,
        "kowactl: --from-file: no region has the field nmae; see: kowactl region create --help\n",
    )


def test_what_is_missing_in_the_environment(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", "")
    assert "set KOWABUNGA_ENDPOINT (or give --endpoint)" in kowactl("region", "list").err
    monkeypatch.setenv("KOWABUNGA_API_KEY", "")
    unset = kowactl("region", "list")
    assert (unset.code, unset.err.count("\n")) == (2, 1)
    assert "set KOWABUNGA_API_KEY" in unset.err


def test_a_wrong_key_and_a_kahuna_out_of_reach(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOWABUNGA_API_KEY", "wrong")
    denied = kowactl("region", "list")
    assert denied.code == 7
    assert "check KOWABUNGA_API_KEY" in denied.err
    away = kowactl("--endpoint", "127.0.0.1:1", "region", "list")
    assert away.code == 8
    assert "check KOWABUNGA_ENDPOINT" in away.err
