"""The contract as data says what the contract says."""

import subprocess
import sys

import pytest

from kowa import contract
from kowa.v2 import options_pb2

KINDS = contract.load().kinds.values()


def test_a_kind_and_its_names() -> None:
    kind = contract.load().kinds["AgentToken"]
    assert (kind.noun, kind.nouns, kind.command, kind.plural) == (
        "agent_token",
        "agent_tokens",
        "agent-token",
        "agent-tokens",
    )
    assert kind.unique == ("agent", "name")
    assert kind.comment.startswith("What an agent signs in with.")
    assert list(kind.service.methods) == ["list", "get", "create", "delete", "watch"]


def test_a_field_and_what_it_must_meet() -> None:
    fields = contract.load().kinds["Instance"].message.fields
    project, memory, metadata = fields["project"], fields["memory"], fields["metadata"]
    assert (project.required, project.immutable, project.output_only, project.ref) == (True, True, False, "Project")
    assert (memory.type, memory.rule.min, memory.comment) == ("int64", 1 << 20, "Required. Memory, in bytes.")
    assert (metadata.is_map, metadata.repeated) == (True, False)
    assert fields["volumes"].repeated
    assert fields["kaktus"].output_only


def test_an_enum_has_short_names() -> None:
    values = contract.load().enums["kowa.v2.Power"].values
    assert [value.short for value in values] == ["unspecified", "running", "stopped", "suspended"]


def test_a_method_and_its_path() -> None:
    start = contract.load().methods["/kowa.v2.InstanceService/StartInstance"]
    assert (start.verb, start.streams, start.mutates) == ("start", False, True)
    assert start.access.role == options_pb2.ROLE_PROJECT_ADMIN
    assert start.http == (contract.Http("post", "/api/v2/instances/{id}:start", "*"),)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_can_be_derived_from(kind: contract.Kind) -> None:
    """What SDK, kowactl and server take for granted."""
    methods = kind.service.methods
    assert {"list", "get", "watch"} <= methods.keys()
    assert kind.message.fields["meta"].type_name == "kowa.v2.Meta"
    for name in (*kind.unique, *(column.partition(".")[0] for column in kind.columns)):
        assert name in kind.message.fields
    for field in kind.message.fields.values():
        assert not field.ref or field.ref in contract.load().kinds
        assert field.comment
    for method in methods.values():
        assert method.access.role
        assert bool(method.http) != method.converses
        assert method.comment
        assert contract.load().stub(method.response)
        changes = method.verb not in {"list", "get", "watch", "wait", "cancel", "console"}
        assert method.mutates == changes
        assert not method.mutates or "request_id" in method.request.fields


def test_reading_it_needs_no_grpc() -> None:
    code = "import sys; from kowa import contract; contract.load(); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
