"""What someone at a shell may rely on."""

import json
import os
from pathlib import Path

import pytest
import yaml

from kowa.v2.subnet_pb2 import Subnet
from kowa.v2.vnet_pb2 import Vnet
from tests.cli.conftest import Kowactl, line, process
from tests.world import World

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
    assert "'0.1G' is not a whole number of bytes" in refused.err


@pytest.mark.usefixtures("shop")
def test_custom_verbs_and_why(kowactl: Kowactl) -> None:
    kowactl(*WEB)
    stopped = kowactl("instance", "stop", "web", "--reason", "night", "-o", "json")
    assert json.loads(stopped.out)["status"]["power"] == "POWER_STOPPED"
    (done,) = json.loads(kowactl("operation", "list", "--filter", 'method = "StopInstance"', "-o", "json").out)
    assert done["reason"] == "night"


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
def test_names_that_are_printed_can_be_typed(kowactl: Kowactl, cloud: World) -> None:
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
    ("operation get web", 2, "'web' is not an id, and an operation has no name"),
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


NOT_A_RESOURCE = [
    # what the file holds            what is said of it
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
    (b"- a", "--from-file must hold one resource"),
    (b"\x00", "--from-file"),
]


@pytest.mark.parametrize(
    ("content", "says"), NOT_A_RESOURCE, ids=[row[0][:20].decode("latin-1") for row in NOT_A_RESOURCE]
)
def test_a_file_that_is_no_resource_is_refused_in_one_line(
    kowactl: Kowactl, tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "region"
    file.write_bytes(content)
    for words in (["create"], ["update", "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"]):
        refused = kowactl("region", *words, "--from-file", str(file))
        assert (refused.code, refused.out) == (2, "")
        assert says in refused.err
        assert refused.err.count("\n") == 1


def test_a_folder_is_no_file(kowactl: Kowactl, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for file in (str(tmp_path), f"/dev/fd/{folder}"):
        refused = kowactl("region", "create", "--from-file", file)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "Is a directory" in refused.err
    os.close(folder)


@pytest.mark.usefixtures("shop")
def test_a_text_file_that_is_no_text(kowactl: Kowactl, tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"\xff\xfe")
    for file in (tmp_path / "init", tmp_path, tmp_path / "none"):
        refused = kowactl(*WEB, "--user-data", f"@{file}")
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert f"can't read {file}: " in refused.err


def test_a_full_disk_behind_the_output(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    for words in ("region list", "region list -o json", "--help"):
        with Path("/dev/full").open("w") as full, process(*words.split(), out=full) as printing:
            _, err = printing.communicate()
        assert (printing.returncode, err) == (1, "kowactl: can't write: No space left on device\n")


def test_an_output_that_can_not_show_it(kowactl: Kowactl) -> None:
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


def test_what_is_missing_in_the_environment(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", "")
    assert "set KOWABUNGA_ENDPOINT (or give --endpoint)" in kowactl("region", "list").err
    monkeypatch.setenv("KOWABUNGA_API_KEY", "")
    unset = kowactl("region", "list")
    assert (unset.code, unset.err.count("\n")) == (2, 1)
    assert "set KOWABUNGA_API_KEY" in unset.err


@pytest.mark.slow
def test_a_wrong_key_and_a_kahuna_out_of_reach(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOWABUNGA_API_KEY", "wrong")
    denied = kowactl("region", "list")
    assert denied.code == 7
    assert "check KOWABUNGA_API_KEY" in denied.err
    away = kowactl("--endpoint", "127.0.0.1:1", "region", "list")
    assert away.code == 8
    assert "check KOWABUNGA_ENDPOINT" in away.err


def test_white_space_around_a_key_is_not_part_of_it(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_an_endpoint_is_a_host_and_a_port(kowactl: Kowactl, endpoint: str) -> None:
    refused = kowactl("--endpoint", endpoint, "region", "list")
    assert (refused.code, refused.out) == (2, "")
    assert f"{endpoint} is no endpoint; write it as HOST:PORT, such as kahuna.example:443" in refused.err


def test_an_endpoint_may_be_written_as_grpc_or_a_browser_does(kowactl: Kowactl) -> None:
    endpoint = os.environ["KOWABUNGA_ENDPOINT"]
    for same in (f"ipv4:{endpoint}", f"dns:///{endpoint}", f"https://{endpoint}/", f" {endpoint}\n"):
        assert kowactl("--endpoint", same, "region", "list").code == 0
