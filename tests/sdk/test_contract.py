"""The contract as data: kinds, fields, methods and references."""

import subprocess
import sys
from typing import Any

import pytest

import build_hook
from kowa import contract
from kowa.v2 import options_pb2
from tests.made_up import made_up

KINDS = contract.load().kinds.values()


def test_a_kind_has_its_names_parents_and_methods() -> None:
    kind = contract.load().kinds["AgentToken"]
    assert (kind.noun, kind.nouns, kind.command, kind.plural) == (
        "agent_token",
        "agent_tokens",
        "agent-token",
        "agent-tokens",
    )
    assert kind.uniques == (options_pb2.Unique(fields=("agent", "name")),)
    assert kind.parents == {"agent": "Agent"}
    assert kind.message.comment.startswith("A credential of an agent.")
    assert list(kind.service.methods) == ["list", "get", "create", "delete", "watch"]


def test_a_field_has_its_type_rules_and_behaviour() -> None:
    fields = contract.load().kinds["Instance"].message.fields
    project, memory, metadata = fields["project"], fields["memory"], fields["metadata"]
    assert (project.required, project.immutable, project.output_only, project.ref) == (True, True, False, "Project")
    assert (memory.type, memory.rule.min, memory.comment) == ("int64", 1 << 20, "Required. Memory, in bytes.")
    assert (metadata.is_map, metadata.repeated) == (True, False)
    assert fields["volumes"].repeated
    assert fields["kaktus"].output_only


def test_an_enum_has_short_names() -> None:
    values = contract.load().enums["kowa.v2.Power"]
    assert [value.short for value in values] == ["unspecified", "running", "stopped", "suspended"]


def test_a_method_has_its_verb_role_and_path() -> None:
    start = contract.load().methods["/kowa.v2.InstanceService/StartInstance"]
    assert (start.verb, start.streams, start.mutates) == ("start", False, True)
    assert start.access.role == options_pb2.ROLE_PROJECT_ADMIN
    assert start.http == (contract.Http("post", "/api/v2/instances/{id}:start", "*"),)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_all_the_clients_need(kind: contract.Kind) -> None:
    """The SDK, kowactl and the server rely on these."""
    methods = kind.service.methods
    assert {"list", "get", "watch"} <= methods.keys()
    assert kind.message.fields["meta"].type_name == "kowa.v2.Meta"
    for name in (
        *(name for unique in kind.uniques for name in unique.fields),
        *(column.partition(".")[0] for column in kind.columns),
    ):
        assert name in kind.message.fields
    assert {reference.kind for reference in kind.message.references} <= contract.load().kinds.keys()
    for field in kind.message.fields.values():
        assert field.comment
    for method in methods.values():
        assert method.access.role
        assert method.http
        assert method.comment
        assert contract.load().stub(method.response)
        changes = method.verb not in {"list", "get", "watch", "wait", "cancel"} and "console" not in method.verb
        assert method.mutates == changes
        assert not method.mutates or "request_id" in method.request.fields


REFERENCES = """
    farm           Farm      one   immutable
    kaktus         Kaktus    one   -
    members.kaktus Kaktus    many  -
    limits.kaktus  Kaktus    many  -
    health.zone    Zone      one   immutable
    standby        Balancer  one   -
    status.kaktus  Kaktus    one   output-only
"""


def test_references_are_found_in_all_parts_of_a_kind() -> None:
    balancer = made_up().kinds["Balancer"]
    assert [line.split() for line in REFERENCES.strip().splitlines()] == [
        [
            reference.name,
            reference.kind,
            "many" if reference.repeated else "one",
            "output-only" if reference.output_only else "immutable" if reference.immutable else "-",
        ]
        for reference in balancer.message.references
    ]


def test_references_of_a_resource_are_found_with_their_paths() -> None:
    balancer: Any = made_up().stub("made_up.v1.Balancer")(farm="f", members=[{"kaktus": "a"}, {}, {"kaktus": "b"}])
    balancer.limits["it's"].kaktus = "c"
    found = [
        path_and_id
        for reference in made_up().kinds["Balancer"].message.references
        for path_and_id in reference.find(balancer)
    ]
    paths = {"farm": "f", "members[0].kaktus": "a", "members[2].kaktus": "b", """limits["it's"].kaktus""": "c"}
    assert found == list(paths.items())


def test_parts_enums_maps_and_oneofs_of_another_package_are_read() -> None:
    with_made_up_kinds = made_up()
    balancer = with_made_up_kinds.kinds["Balancer"]
    fields, parts = balancer.message.fields, balancer.message.submessages
    assert {name: part.name.removeprefix("made_up.v1.") for name, part in parts.items()} == {
        "members": "Balancer.Member",
        "limits": "Balancer.Limit",
        "health": "Balancer.Health",
        "status": "BalancerStatus",
    } | {"meta": "kowa.v2.Meta"}
    assert parts["members"].comment == "A host that takes calls."
    assert [(fields[name].is_map, fields[name].type) for name in ("named_ports", "limits", "members")] == [
        (True, "uint32"),
        (True, "message"),
        (False, "message"),
    ]
    protocols = with_made_up_kinds.enums[parts["health"].fields["protocol"].type_name]
    assert [(value.short, value.comment) for value in protocols[1:3]] == [
        ("tcp", "It opens a connection."),
        ("http", "It asks for a page."),
    ]
    assert balancer.message.oneofs["exposure"] == contract.Oneof("exposure", ("address", "network"), required=True)
    assert fields["address"].presence
    assert with_made_up_kinds.stub("made_up.v1.Balancer.Member").DESCRIPTOR.name == "Member"
    assert with_made_up_kinds.methods["/made_up.v1.BalancerService/RebalanceBalancers"].verb == "rebalance"


def test_unique_fields_are_listed_for_each_kind() -> None:
    assert contract.load().kinds["Adapter"].uniques == (
        options_pb2.Unique(fields=("project", "name")),
        options_pb2.Unique(fields=("subnet", "address")),
        options_pb2.Unique(fields=("mac",)),
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_list_and_map_of_a_request_has_a_maximum(kind: contract.Kind) -> None:
    def unbounded(message: contract.Message) -> list[str]:
        fields = [field for field in message.fields.values() if not field.output_only and field.name != "meta"]
        own = [f"{message.name}.{field.name}" for field in fields if field.is_collection and not field.rule.max_items]
        parts = [message.submessages[field.name] for field in fields if field.name in message.submessages]
        return [*own, *(name for part in parts for name in unbounded(part))]

    assert unbounded(kind.message) == []


def test_imported_contracts_are_not_written_again_while_others_read_them() -> None:
    build_hook.copy_third_party()
    before = {path: path.stat().st_mtime_ns for path in build_hook.THIRD_PARTY.rglob("*.proto")}
    build_hook.copy_third_party()
    assert before == {path: path.stat().st_mtime_ns for path in build_hook.THIRD_PARTY.rglob("*.proto")} != {}


def test_reading_the_contract_imports_no_grpc() -> None:
    code = "import sys; from kowa import contract; contract.load(); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
