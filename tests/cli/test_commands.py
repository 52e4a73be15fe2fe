"""What someone at a shell may rely on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kowa.v2.subnet_pb2 import Subnet
from kowa.v2.vnet_pb2 import Vnet
from tests.cli.conftest import WEB, Kowactl, line, process
from tests.cli.terminal import in_terminal
from tests.control_plane import ControlPlane


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


def test_labels_are_given_one_by_one_asked_for_and_shown_on_request(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu", "--label", "env=prod", "--label", "k8s.io/role=db")
    kowactl("region", "create", "--name", "us")
    assert kowactl("region", "list", "--filter", "labels.env = prod", "-o", "name").out == "eu\n"
    assert kowactl("region", "list", "--filter", "labels.env != prod", "-o", "name").out == "us\n"
    shown = kowactl("region", "list", "--show-labels").out.splitlines()
    assert [line.split(maxsplit=3)[3] for line in shown] == ["LABELS", "env=prod, k8s.io/role=db", "-"]
    assert "LABELS" not in kowactl("region", "list").out
    changed = json.loads(kowactl("region", "update", "eu", "--label", "env=test", "-o", "json").out)
    assert changed["labels"] == {"env": "test"}
    assert json.loads(kowactl("region", "update", "eu", "--clear", "labels", "-o", "json").out)["labels"] == {}
    assert kowactl("operation", "list", "--show-labels").code == 2  # nobody writes operations


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
    assert (again.code, again.out) == (0, "shop/again\n")


@pytest.mark.usefixtures("shop")
def test_what_may_not_change_is_refused_by_name_also_from_a_file(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    kowactl("project", "create", "--name", "other")
    web = json.loads(kowactl("instance", "get", "web", "-o", "json").out)
    file = tmp_path / "web.json"
    for field, value in (("zone", "us/a"), ("project", "other"), ("volumes", [])):
        file.write_text(json.dumps(web | {field: value, "memory": "2G"}))
        refused = kowactl("instance", "update", "web", "--from-file", str(file))
        assert (refused.code, refused.out) == (4, "")
        assert f"{field}: can't be changed" in refused.err
    assert json.loads(kowactl("instance", "get", "web", "-o", "json").out)["memory"] == web["memory"]


def test_one_field_is_not_given_and_cleared_at_once(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl("region", "create", "--name", "eu", "--description", "old")
    refused = kowactl("region", "update", "eu", "--description", "new", "--clear", "description")
    assert (refused.code, refused.out) == (2, "")
    assert "--description and --clear description contradict each other" in refused.err
    file = tmp_path / "eu.yaml"
    file.write_text(kowactl("region", "get", "eu", "-o", "yaml").out)
    cleared = kowactl("region", "update", "eu", "--from-file", str(file), "--clear", "description", "-o", "json")
    assert json.loads(cleared.out)["description"] == ""


@pytest.mark.usefixtures("shop")
def test_long_text_comes_from_a_file(kowactl: Kowactl, tmp_path: Path) -> None:
    (tmp_path / "init").write_text("#cloud-config\n")
    made = json.loads(kowactl(*WEB, "--user-data", f"@{tmp_path / 'init'}", "-o", "json").out)
    assert made["user_data"] == "#cloud-config\n"


@pytest.mark.usefixtures("shop")
def test_a_text_may_begin_with_at(kowactl: Kowactl, tmp_path: Path) -> None:
    made = json.loads(kowactl(*WEB, "--user-data", "@@reboot x", "-o", "json").out)
    assert made["user_data"] == "@reboot x"
    file = tmp_path / "web.yaml"
    file.write_text("user_data: '@daily'\n")
    changed = json.loads(kowactl("instance", "update", "web", "--from-file", str(file), "-o", "json").out)
    assert changed["user_data"] == "@daily"
    assert "@@" in kowactl("instance", "update", "--help").out


@pytest.mark.usefixtures("shop")
def test_a_size_as_tables_show_it(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    assert json.loads(kowactl("instance", "update", "web", "--memory", "1.5G", "-o", "json").out)["memory"] == str(
        1536 << 20
    )
    refused = kowactl("instance", "update", "web", "--memory", "0.1G")
    assert (refused.code, refused.out) == (2, "")
    assert "'0.1G' is no whole number of bytes" in refused.err


@pytest.mark.usefixtures("shop")
def test_custom_verbs_and_why(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    stopped = kowactl("instance", "stop", "web", "--reason", "night", "-o", "json")
    assert json.loads(stopped.out)["status"]["power"] == "POWER_STOPPED"
    (done,) = json.loads(kowactl("operation", "list", "--filter", 'method = "StopInstance"', "-o", "json").out)
    assert done["reason"] == "night"


@pytest.mark.usefixtures("shop")
def test_a_console_in_a_terminal_and_in_a_pipe(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    with in_terminal("console", "web") as terminal:
        terminal.read_until(b"login: ")
        os.write(terminal.master, b"root\r\x03")
        terminal.read_until(b"ROOT\r\x03")
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0
        assert not terminal.raw
    shown = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m kowactl.main --insecure console web </dev/null | head -c 5"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"login", b"")


def test_operations_are_listed_with_the_newest_first(kowactl: Kowactl) -> None:
    for name in ("a", "b", "c", "d"):
        kowactl("region", "create", "--name", name)
    assert [each["target_name"] for each in json.loads(kowactl("operation", "list", "-o", "json").out)] == [*"dcba"]


def test_cancelling_has_no_dry_run(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    operation = kowactl("operation", "list", "-o", "name").out.strip()
    dry = kowactl("operation", "cancel", operation, "--validate-only")
    assert (dry.code, dry.out) == (2, "")
    assert "No such option '--validate-only'" in dry.err
    ended = kowactl("operation", "cancel", operation, "--reason", "enough", "-o", "json")
    assert (ended.code, ended.err, json.loads(ended.out)["phase"]) == (0, "", "PHASE_DONE")


def test_deletes(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    gone = kowactl("region", "delete", "eu")
    assert (gone.code, gone.out, gone.err) == (0, "", "region eu is gone\n")
    assert kowactl("region", "list", "-o", "name").out == ""


def test_programs_are_told_of_a_deletions_operation(kowactl: Kowactl) -> None:
    for name in ("eu", "us", "as"):
        kowactl("region", "create", "--name", name)
    gone = json.loads(kowactl("region", "delete", "eu", "-o", "json").out)
    assert (gone["method"], gone["target_name"], gone["phase"]) == ("DeleteRegion", "eu", "PHASE_DONE")
    assert yaml.safe_load(kowactl("region", "delete", "us", "--no-wait", "-o", "yaml").out)["target_name"] == "us"
    operation = kowactl("region", "delete", "as", "--no-wait", "-o", "name").out.strip()
    assert kowactl("operation", "wait", operation).code == 0


def test_a_secret_is_shown_once(kowactl: Kowactl) -> None:
    kowactl("agent", "create", "--name", "host-1")
    made = kowactl("agent-token", "create", "--agent", "host-1", "--name", "first").out
    facts = dict(line.split(maxsplit=1) for line in made.splitlines())
    assert facts["secret"].startswith(facts["prefix"])
    assert "secret" not in kowactl("agent-token", "get", "host-1/first").out
    assert kowactl("agent-token", "get", "host-1/first", "-o", "name").out == "host-1/first\n"


def test_a_secret_that_is_shown_once_is_not_thrown_away(kowactl: Kowactl) -> None:
    kowactl("agent", "create", "--name", "host-1")
    refused = kowactl("agent-token", "create", "--agent", "host-1", "--name", "first", "-o", "name")
    assert (refused.code, refused.out) == (2, "")
    assert "-o json" in refused.err
    assert kowactl("agent-token", "list", "-o", "name").out == ""


def test_validate_only_changes_nothing(kowactl: Kowactl) -> None:
    planned = kowactl("region", "create", "--name", "eu", "--validate-only", "-o", "name")
    assert (planned.code, planned.out, planned.err) == (0, "eu\n", "valid; nothing was changed\n")
    assert kowactl("region", "list", "-o", "name").out == ""


def test_a_watch_is_a_line_an_event(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    with process("region", "watch", "-o", "json") as watching:
        first, synced = (json.loads(line(watching.stdout)) for _ in range(2))
        kowactl("region", "delete", "eu")
        removed = json.loads(line(watching.stdout))
    assert (first["change"], first["region"]["name"]) == ("put", "eu")
    assert (synced["change"], removed["change"], removed["id"]) == ("synced", "removed", first["id"])


@pytest.mark.usefixtures("shop")
def test_a_watch_says_what_is_gone_by_name(kowactl: Kowactl) -> None:
    with process("zone", "watch", "--filter", 'name = "a"') as rows, process("zone", "watch", "-o", "name") as names:
        there = sorted(line(rows.stdout).split() for _ in range(2))
        named = sorted(line(names.stdout) for _ in range(2))
        assert line(rows.stdout).split() == ["synced"]
        kowactl("zone", "delete", "us/a")
        gone, name = line(rows.stdout).split(), line(names.stdout)
    assert there == [["put", "a", "eu", "ready"], ["put", "a", "us", "ready"]]
    assert gone == ["removed", "us/a"]
    assert (named, name) == (["eu/a\n", "us/a\n"], "us/a\n")


@pytest.mark.usefixtures("shop")
def test_a_name_that_is_not_unique(kowactl: Kowactl) -> None:
    ambiguous = kowactl("zone", "get", "a")
    assert ambiguous.code == 2
    assert "'a' is ambiguous" in ambiguous.err
    assert "eu/a (" in ambiguous.err
    assert "us/a (" in ambiguous.err
    assert kowactl("zone", "get", "us/a").code == 0


@pytest.mark.usefixtures("shop")
def test_names_that_are_printed_can_be_typed(kowactl: Kowactl, cloud: ControlPlane) -> None:
    for region in cloud.client.regions.list():
        vnet = cloud.client.vnets.create(Vnet(region=region.meta.id, name="lan"))
        cloud.client.subnets.create(Subnet(vnet=vnet.meta.id, name="front", cidr="10.0.0.0/24"))
        cloud.zone(region, "a/b")
    for kind in ("region", "zone", "kaktus", "volume", "storage-pool", "vnet", "subnet", "operation"):
        ids = [each["meta"]["id"] for each in json.loads(kowactl(kind, "list", "-o", "json").out)]
        names = kowactl(kind, "list", "-o", "name").out.splitlines()
        assert len(set(names)) == len(ids) > 0
        assert [json.loads(kowactl(kind, "get", name, "-o", "json").out)["meta"]["id"] for name in names[:4]] == ids[:4]
    assert sorted(kowactl("subnet", "list", "-o", "name").out.split()) == ["eu/lan/front", "us/lan/front"]


@pytest.mark.usefixtures("shop")
def test_what_else_is_typed_tells_names_apart(kowactl: Kowactl) -> None:
    kowactl("project", "create", "--name", "shop2")
    disk = ("--storage-pool", "disks", "--size", "1G", "--name", "data")
    data = {
        project: json.loads(kowactl("volume", "create", "--project", project, *disk, "-o", "json").out)["meta"]["id"]
        for project in ("shop", "shop2")
    }
    made = json.loads(kowactl(*WEB, "--volumes", "data", "-o", "json").out)
    assert made["volumes"][1] == data["shop"]
    assert kowactl("volume", "get", "data").code == 2


@pytest.mark.parametrize("name", ["*", "a*b", 'say "hi"', "it's", "C:\\dir", "a AND b", "мир 😀", " a "])
def test_names_with_signs_that_filters_use(kowactl: Kowactl, name: str) -> None:
    for each in (name, "another"):
        kowactl("region", "create", "--name", each)
    assert json.loads(kowactl("region", "get", name, "-o", "json").out)["name"] == name


def test_a_name_may_look_like_an_id(kowactl: Kowactl) -> None:
    for name in ("deadbeef" * 4, "urn:uuid:2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"):
        made = json.loads(kowactl("region", "create", "--name", name, "-o", "json").out)
        assert kowactl("region", "get", name, "-o", "name").out == f"{name}\n"
        assert kowactl("region", "get", made["meta"]["id"].upper(), "-o", "name").out == f"{name}\n"
