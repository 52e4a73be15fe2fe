"""Commands of kowactl: input, output and effects."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kowa.v2.subnet_pb2 import Subnet
from kowa.v2.vnet_pb2 import Vnet
from tests.cli.conftest import WEB, Kowactl, next_line, process
from tests.cli.terminal import in_terminal
from tests.control_plane import ControlPlane


@pytest.mark.usefixtures("wanted_instance")
def test_an_instance_is_created_from_names_sizes_and_maps(kowactl: Kowactl) -> None:
    created = json.loads(
        kowactl(*WEB, "--power", "running", "--metadata", "a=1", "--metadata", "b=x=y", "-o", "json").out
    )
    assert created["memory"] == str(1536 << 20)
    assert created["power"] == "POWER_RUNNING"
    assert created["metadata"] == {"a": "1", "b": "x=y"}
    assert created["project"] == json.loads(kowactl("project", "get", "shop", "-o", "json").out)["meta"]["id"]
    assert created["volumes"] == [json.loads(kowactl("volume", "get", "shop/os", "-o", "json").out)["meta"]["id"]]


@pytest.mark.usefixtures("wanted_instance")
def test_a_table_shows_names_instead_of_ids_and_sizes_with_units(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    assert kowactl("instance", "list").out.splitlines() == [
        "NAME  PROJECT  VCPUS  MEMORY  POWER    KAKTUS  STATE",
        "web   shop     2      1.5G    running  host-1  ready",
    ]


def test_labels_are_set_filtered_and_shown_on_request(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu", "--label", "env=prod", "--label", "k8s.io/role=db")
    kowactl("region", "create", "--name", "us")
    assert kowactl("region", "list", "--filter", "labels.env = prod", "-o", "name").out == "eu\n"
    assert kowactl("region", "list", "--filter", "labels.env != prod", "-o", "name").out == "us\n"
    output = kowactl("region", "list", "--show-labels").out.splitlines()
    assert [line.split(maxsplit=3)[3] for line in output] == ["LABELS", "env=prod, k8s.io/role=db", "-"]
    assert "LABELS" not in kowactl("region", "list").out
    changed = json.loads(kowactl("region", "update", "eu", "--label", "env=test", "-o", "json").out)
    assert changed["labels"] == {"env": "test"}
    assert json.loads(kowactl("region", "update", "eu", "--clear", "labels", "-o", "json").out)["labels"] == {}
    assert kowactl("operation", "list", "--show-labels").code == 2  # operations have no labels


@pytest.mark.usefixtures("wanted_instance")
def test_get_shows_all_set_fields(kowactl: Kowactl) -> None:
    facts = dict(line.split(maxsplit=1) for line in kowactl("volume", "get", "os").out.splitlines())
    assert facts["size"] == "8G"
    assert facts["storage_pool"] == "disks"
    assert facts["meta.state"] == "ready"


def test_output_formats_names_json_and_yaml(kowactl: Kowactl) -> None:
    for name in ("eu", "us"):
        kowactl("region", "create", "--name", name)
    assert kowactl("region", "list", "--order-by", "name", "-o", "name").out == "eu\nus\n"
    assert [region["name"] for region in json.loads(kowactl("region", "list", "-o", "json").out)].count("eu") == 1
    assert yaml.safe_load(kowactl("region", "get", "eu", "-o", "yaml").out)["name"] == "eu"
    assert kowactl("region", "list", "--filter", 'name = "us"', "-o", "name").out == "us\n"
    assert kowactl("regions", "list", "--order-by", "name desc", "--limit", "1", "-o", "name").out == "us\n"


@pytest.mark.usefixtures("wanted_instance")
def test_update_sets_given_fields_and_clears_named_ones(kowactl: Kowactl) -> None:
    kowactl(*WEB, "--metadata", "a=1", "--description", "old")
    changed = json.loads(
        kowactl("instance", "update", "web", "--memory", "4G", "--clear", "metadata", "-o", "json").out
    )
    assert (changed["memory"], changed["metadata"], changed["description"]) == (str(4 << 30), {}, "old")


@pytest.mark.usefixtures("wanted_instance")
def test_a_resource_can_be_read_edited_and_sent_back_from_a_file(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl(*WEB)
    file = tmp_path / "web.json"
    file.write_text(kowactl("instance", "get", "web", "-o", "json").out.replace("1610612736", "2G"))
    assert json.loads(kowactl("instance", "update", "web", "--from-file", str(file), "-o", "json").out)[
        "memory"
    ] == str(2 << 30)
    assert kowactl("instance", "delete", "web").code == 0
    again = kowactl("instance", "create", "--name", "again", "--from-file", str(file), "-o", "name")
    assert (again.code, again.out) == (0, "shop/again\n")


@pytest.mark.usefixtures("wanted_instance")
def test_a_change_of_an_immutable_field_from_a_file_is_refused_by_name(kowactl: Kowactl, tmp_path: Path) -> None:
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


def test_setting_and_clearing_one_field_is_refused(kowactl: Kowactl, tmp_path: Path) -> None:
    kowactl("region", "create", "--name", "eu", "--description", "old")
    refused = kowactl("region", "update", "eu", "--description", "new", "--clear", "description")
    assert (refused.code, refused.out) == (2, "")
    assert "--description and --clear description contradict each other" in refused.err
    file = tmp_path / "eu.yaml"
    file.write_text(kowactl("region", "get", "eu", "-o", "yaml").out)
    cleared = kowactl("region", "update", "eu", "--from-file", str(file), "--clear", "description", "-o", "json")
    assert json.loads(cleared.out)["description"] == ""


@pytest.mark.usefixtures("wanted_instance")
def test_an_at_sign_reads_a_value_from_a_file(kowactl: Kowactl, tmp_path: Path) -> None:
    (tmp_path / "init").write_text("#cloud-config\n")
    created = json.loads(kowactl(*WEB, "--user-data", f"@{tmp_path / 'init'}", "-o", "json").out)
    assert created["user_data"] == "#cloud-config\n"


@pytest.mark.usefixtures("wanted_instance")
def test_two_at_signs_are_a_literal_one(kowactl: Kowactl, tmp_path: Path) -> None:
    created = json.loads(kowactl(*WEB, "--user-data", "@@reboot x", "-o", "json").out)
    assert created["user_data"] == "@reboot x"
    file = tmp_path / "web.yaml"
    file.write_text("user_data: '@daily'\n")
    changed = json.loads(kowactl("instance", "update", "web", "--from-file", str(file), "-o", "json").out)
    assert changed["user_data"] == "@daily"
    assert "@@" in kowactl("instance", "update", "--help").out


@pytest.mark.usefixtures("wanted_instance")
def test_a_size_can_be_typed_as_tables_show_it(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    assert json.loads(kowactl("instance", "update", "web", "--memory", "1.5G", "-o", "json").out)["memory"] == str(
        1536 << 20
    )
    refused = kowactl("instance", "update", "web", "--memory", "0.1G")
    assert (refused.code, refused.out) == (2, "")
    assert "'0.1G' is no whole number of bytes" in refused.err


@pytest.mark.usefixtures("wanted_instance")
def test_a_verb_stores_its_reason(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    stopped = kowactl("instance", "stop", "web", "--reason", "night", "-o", "json")
    assert json.loads(stopped.out)["status"]["power"] == "POWER_STOPPED"
    (done,) = json.loads(kowactl("operation", "list", "--filter", 'method = "StopInstance"', "-o", "json").out)
    assert done["reason"] == "night"


@pytest.mark.usefixtures("wanted_instance")
def test_a_console_works_in_a_terminal_and_in_a_pipe(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    with in_terminal("console", "web") as terminal:
        terminal.read_until(b"login: ")
        os.write(terminal.master, b"root\r\x03")
        terminal.read_until(b"ROOT\r\x03")
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0
        assert not terminal.raw
    output = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m kowactl.main --insecure console web </dev/null | head -c 5"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (output.returncode, output.stdout, output.stderr) == (0, b"login", b"")


def test_operations_are_listed_newest_first(kowactl: Kowactl) -> None:
    for name in ("a", "b", "c", "d"):
        kowactl("region", "create", "--name", name)
    assert [each["target_name"] for each in json.loads(kowactl("operation", "list", "-o", "json").out)] == [*"dcba"]


def test_cancelling_has_no_validate_only(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    operation = kowactl("operation", "list", "-o", "name").out.strip()
    dry = kowactl("operation", "cancel", operation, "--validate-only")
    assert (dry.code, dry.out) == (2, "")
    assert "No such option '--validate-only'" in dry.err
    ended = kowactl("operation", "cancel", operation, "--reason", "enough", "-o", "json")
    assert (ended.code, ended.err, json.loads(ended.out)["phase"]) == (0, "", "PHASE_DONE")


def test_delete_reports_the_deletion(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    gone = kowactl("region", "delete", "eu")
    assert (gone.code, gone.out, gone.err) == (0, "", "region eu is gone\n")
    assert kowactl("region", "list", "-o", "name").out == ""


def test_delete_prints_its_operation_for_programs(kowactl: Kowactl) -> None:
    for name in ("eu", "us", "as"):
        kowactl("region", "create", "--name", name)
    gone = json.loads(kowactl("region", "delete", "eu", "-o", "json").out)
    assert (gone["method"], gone["target_name"], gone["phase"]) == ("DeleteRegion", "eu", "PHASE_DONE")
    assert yaml.safe_load(kowactl("region", "delete", "us", "--no-wait", "-o", "yaml").out)["target_name"] == "us"
    operation = kowactl("region", "delete", "as", "--no-wait", "-o", "name").out.strip()
    assert kowactl("operation", "wait", operation).code == 0


def test_a_secret_is_shown_by_create_only(kowactl: Kowactl) -> None:
    kowactl("agent", "create", "--name", "host-1")
    created = kowactl("agent-token", "create", "--agent", "host-1", "--name", "first").out
    facts = dict(line.split(maxsplit=1) for line in created.splitlines())
    assert facts["secret"].startswith(facts["prefix"])
    assert "secret" not in kowactl("agent-token", "get", "host-1/first").out
    assert kowactl("agent-token", "get", "host-1/first", "-o", "name").out == "host-1/first\n"


def test_an_output_format_that_would_lose_the_secret_is_refused(kowactl: Kowactl) -> None:
    kowactl("agent", "create", "--name", "host-1")
    refused = kowactl("agent-token", "create", "--agent", "host-1", "--name", "first", "-o", "name")
    assert (refused.code, refused.out) == (2, "")
    assert "-o json" in refused.err
    assert kowactl("agent-token", "list", "-o", "name").out == ""


def test_validate_only_changes_nothing(kowactl: Kowactl) -> None:
    planned = kowactl("region", "create", "--name", "eu", "--validate-only", "-o", "name")
    assert (planned.code, planned.out, planned.err) == (0, "eu\n", "valid; nothing was changed\n")
    assert kowactl("region", "list", "-o", "name").out == ""


def test_a_watch_prints_one_line_for_each_event(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    with process("region", "watch", "-o", "json") as watching:
        first, synced = (json.loads(next_line(watching.stdout)) for _ in range(2))
        kowactl("region", "delete", "eu")
        removed = json.loads(next_line(watching.stdout))
    assert (first["change"], first["region"]["name"]) == ("put", "eu")
    assert (synced["change"], removed["change"], removed["id"]) == ("synced", "removed", first["id"])


@pytest.mark.usefixtures("wanted_instance")
def test_a_watch_prints_removed_resources_by_name(kowactl: Kowactl) -> None:
    with process("zone", "watch", "--filter", 'name = "a"') as rows, process("zone", "watch", "-o", "name") as names:
        listed = sorted(next_line(rows.stdout).split() for _ in range(2))
        named = sorted(next_line(names.stdout) for _ in range(2))
        assert next_line(rows.stdout).split() == ["synced"]
        kowactl("zone", "delete", "us/a")
        gone, name = next_line(rows.stdout).split(), next_line(names.stdout)
    assert listed == [["put", "a", "eu", "ready"], ["put", "a", "us", "ready"]]
    assert gone == ["removed", "us/a"]
    assert (named, name) == (["eu/a\n", "us/a\n"], "us/a\n")


@pytest.mark.usefixtures("wanted_instance")
def test_an_ambiguous_name_is_refused_with_its_candidates(kowactl: Kowactl) -> None:
    ambiguous = kowactl("zone", "get", "a")
    assert ambiguous.code == 2
    assert "'a' is ambiguous" in ambiguous.err
    assert "eu/a (" in ambiguous.err
    assert "us/a (" in ambiguous.err
    assert kowactl("zone", "get", "us/a").code == 0


@pytest.mark.usefixtures("wanted_instance")
def test_printed_names_can_be_typed(kowactl: Kowactl, cloud: ControlPlane) -> None:
    for region in cloud.client.regions.list():
        vnet = cloud.client.vnets.create(Vnet(region=region.meta.id, name="lan"))
        cloud.client.subnets.create(Subnet(vnet=vnet.meta.id, name="front", cidr="10.0.0.0/24"))
        cloud.add_zone(region, "a/b")
    for kind in ("region", "zone", "kaktus", "volume", "storage-pool", "vnet", "subnet", "operation"):
        ids = [each["meta"]["id"] for each in json.loads(kowactl(kind, "list", "-o", "json").out)]
        names = kowactl(kind, "list", "-o", "name").out.splitlines()
        assert len(set(names)) == len(ids) > 0
        assert [json.loads(kowactl(kind, "get", name, "-o", "json").out)["meta"]["id"] for name in names[:4]] == ids[:4]
    assert sorted(kowactl("subnet", "list", "-o", "name").out.split()) == ["eu/lan/front", "us/lan/front"]


@pytest.mark.usefixtures("wanted_instance")
def test_other_options_resolve_an_ambiguous_name(kowactl: Kowactl) -> None:
    kowactl("project", "create", "--name", "shop2")
    disk = ("--storage-pool", "disks", "--size", "1G", "--name", "data")
    data = {
        project: json.loads(kowactl("volume", "create", "--project", project, *disk, "-o", "json").out)["meta"]["id"]
        for project in ("shop", "shop2")
    }
    created = json.loads(kowactl(*WEB, "--volumes", "data", "-o", "json").out)
    assert created["volumes"][1] == data["shop"]
    assert kowactl("volume", "get", "data").code == 2


@pytest.mark.parametrize("name", ["*", "a*b", 'say "hi"', "it's", "C:\\dir", "a AND b", "мир 😀", " a "])
def test_names_with_special_characters_of_filters_are_found(kowactl: Kowactl, name: str) -> None:
    for each in (name, "another"):
        kowactl("region", "create", "--name", each)
    assert json.loads(kowactl("region", "get", name, "-o", "json").out)["name"] == name


def test_a_name_may_look_like_an_id(kowactl: Kowactl) -> None:
    for name in ("deadbeef" * 4, "urn:uuid:2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"):
        created = json.loads(kowactl("region", "create", "--name", name, "-o", "json").out)
        assert kowactl("region", "get", name, "-o", "name").out == f"{name}\n"
        assert kowactl("region", "get", created["meta"]["id"].upper(), "-o", "name").out == f"{name}\n"
