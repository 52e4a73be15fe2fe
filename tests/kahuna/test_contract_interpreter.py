"""Rules of the contract are applied to nested messages, lists, maps and oneofs as to top-level fields."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from kahuna.domain import rules
from kahuna.domain.changes import apply_mask, check_immutable, clear_output_only, fields_of_mask, new_references
from kahuna.domain.errors import Refusal
from kahuna.domain.validation import check_request, check_resource, normalize
from kowa import contract
from kowa.v2 import instance_pb2, options_pb2
from tests.made_up import bad_input, made_up


@pytest.fixture(autouse=True, scope="module")
def contract_with_made_up_kinds() -> Iterator[None]:
    """Adds the made-up kinds to the contract."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "load", made_up)
        yield


def stub(of: str, **fields: Any) -> Any:
    """A message of the made-up contract."""
    return made_up().stub(f"made_up.v1.{of}")(**fields)


def balancer(**fields: Any) -> Any:
    """A valid balancer with these fields changed, given as in JSON."""
    return ParseDict(bad_input.balancer(fields), stub("Balancer"))


def as_json(message: Message) -> dict[str, Any]:
    """The fields that are set, as in JSON."""
    return MessageToDict(message, preserving_proto_field_name=True)


KIND = made_up().kinds["Balancer"]


@pytest.mark.parametrize(("fields", "reason", "message"), [row[1:] for row in bad_input.REFUSED], ids=[
    row[0] for row in bad_input.REFUSED
])  # fmt: skip
def test_invalid_parts_are_refused_with_their_field_path(fields: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_resource(balancer(**fields))
    assert refused.value.reason == reason
    assert message in refused.value.message
    assert len(refused.value.violations) == 1


@pytest.mark.parametrize("fields", bad_input.ACCEPTED, ids=lambda fields: str(next(reversed(fields.items()))))
def test_valid_parts_are_accepted(fields: dict[str, Any]) -> None:
    check_resource(balancer(**fields))


def test_all_violations_are_in_one_error() -> None:
    with pytest.raises(Refusal) as refused:
        check_resource(balancer(members=[{}, {"kaktus": "a", "weight": 101}], ports=["x"], address=None))
    assert [violation.field for violation in refused.value.violations] == [
        "members[0].kaktus",
        "members[1].weight",
        "ports[0]",
        "exposure",
    ]


def test_only_the_first_elements_of_a_too_long_list_are_checked() -> None:
    with pytest.raises(Refusal) as refused:
        check_resource(balancer(members=[{}] * 1000))
    assert [violation.field for violation in refused.value.violations] == [
        "members",
        *(f"members[{index}].kaktus" for index in range(4)),
    ]


def test_a_request_check_covers_a_verbs_parts_and_leaves_out_its_resource() -> None:
    with pytest.raises(Refusal, match=r"without\[1\].kaktus: is required"):
        check_request(stub("RebalanceBalancersRequest", farm="f", without=[{"kaktus": "a"}, {}]))
    check_request(stub("CreateBalancerRequest", balancer={"members": [{}]}))
    with pytest.raises(Refusal, match="balancer: is required"):
        check_request(stub("CreateBalancerRequest"))


def test_unchanged_values_in_a_part_are_not_checked_again() -> None:
    stored = {"path": "/" * 40, "protocol": "PROTOCOL_HTTP"}
    check_resource(balancer(health=stored | {"host_name": "a"}), balancer(health=stored))
    with pytest.raises(Refusal, match=r"health\.host_name"):
        check_resource(balancer(health=stored | {"host_name": "A"}), balancer(health=stored))
    check_resource(balancer(address=None, name="new"), balancer(address=None))
    with pytest.raises(Refusal, match="exposure"):
        check_resource(balancer(address=None), balancer())


def test_every_rule_of_the_contract_has_an_interpreter() -> None:
    rules_of_whole_collections = {"max_items", "keys", "unique_by"}
    assert {
        field.name for field in options_pb2.Rule.DESCRIPTOR.fields
    } == rules.CHECKS.keys() | rules_of_whole_collections


def test_output_only_fields_of_a_request_are_cleared_in_all_parts() -> None:
    sent = balancer(
        members=[{"kaktus": "a", "healthy": True}],
        health={"path": "/", "answered": 3},
        limits={"a": {"rate": "1024", "used": "7"}},
        status={"calls": 1},
    )
    clear_output_only(sent)
    assert as_json(sent) == bad_input.balancer(
        {"members": [{"kaktus": "a"}], "health": {"path": "/"}, "limits": {"a": {"rate": "1024"}}}
    )


def test_defaults_are_filled_in_in_parts() -> None:
    filled = balancer(members=[{"kaktus": "a"}, {"kaktus": "b", "weight": 7}], health={"path": "/"})
    normalize(filled)
    assert [member.weight for member in filled.members] == [1, 7]
    assert as_json(filled)["health"] == {"path": "/", "protocol": "PROTOCOL_TCP"}
    without_parts = balancer()
    normalize(without_parts)
    assert without_parts == balancer()


MASKS = [
    # mask, message of the refusal (empty: accepted)
    (["health.path", "labels"], ""),
    (["health"], ""),
    (["status"], "status is the server's to fill"),
    (["health.answered"], "health.answered is the server's to fill"),
    (["status.calls"], "status.calls is the server's to fill"),
    (["meta"], "balancers have no field 'meta' to change"),
    (["health.colour"], "balancers have no field 'health.colour' to change"),
    (["colour"], "balancers have no field 'colour' to change"),
    ([""], "balancers have no field '' to change"),
    (["health."], "balancers have no field 'health.' to change"),
    (["members.kaktus"], "members.kaktus: name the whole field, members; what is sent replaces it"),
    (["labels.tier"], "labels.tier: name the whole field, labels; what is sent replaces it"),
    (["limits.a.rate"], "limits.a.rate: name the whole field, limits; what is sent replaces it"),
    (["health.path.x"], "health.path.x: name the whole field, health.path; what is sent replaces it"),
    (["name.x"], "name.x: name the whole field, name; what is sent replaces it"),
]


@pytest.mark.parametrize(("mask", "message"), MASKS, ids=[",".join(mask) for mask, _ in MASKS])
def test_a_mask_may_name_fields_of_single_parts_only(mask: list[str], message: str) -> None:
    if not message:
        assert fields_of_mask(KIND, balancer(), mask) == mask
        return
    with pytest.raises(Refusal) as refused:
        fields_of_mask(KIND, balancer(), mask)
    assert (refused.value.reason, refused.value.violations[0].field) == ("INVALID_ARGUMENT", "update_mask")
    assert message in refused.value.message


def test_the_default_mask_has_the_set_fields_without_output_only_ones() -> None:
    sent = balancer(health={"path": "/", "answered": 3}, status={"calls": 1}, labels={"a": "b"})
    sent.meta.id = "x"
    assert fields_of_mask(KIND, sent, []) == ["farm", "name", "labels", "health.path", "address"]
    assert fields_of_mask(KIND, stub("Balancer", health={}), []) == ["health"]
    assert fields_of_mask(KIND, stub("Balancer", health={"answered": 1}), []) == []


CHANGES: list[tuple[str, list[str], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # case, mask, stored before, sent, stored after
    (
        "a part of a part",
        ["health.path"],
        {"health": {"path": "/", "protocol": "PROTOCOL_HTTP", "answered": 3}},
        {"health": {"path": "/new", "protocol": "PROTOCOL_TCP"}},
        {"health": {"path": "/new", "protocol": "PROTOCOL_HTTP", "answered": 3}},
    ),
    ("a part of what is not there", ["health.path"], {}, {"health": {"path": "/"}}, {"health": {"path": "/"}}),
    ("a part of nothing to nothing", ["health.path"], {}, {}, {}),
    ("a part emptied", ["health.host_name"], {"health": {"path": "/", "host_name": "a"}},
     {}, {"health": {"path": "/"}}),
    ("a part as a whole", ["health"], {"health": {"path": "/", "host_name": "a", "answered": 3}},
     {"health": {"path": "/b", "answered": 9}}, {"health": {"path": "/b", "answered": 3}}),
    ("a part taken away", ["health"], {"health": {"path": "/", "answered": 3}}, {}, {}),
    ("a list", ["members"], {"members": [{"kaktus": "a", "healthy": True}, {"kaktus": "b", "healthy": True}]},
     {"members": [{"kaktus": "c", "healthy": True}, {"kaktus": "a", "weight": 2}]},
     {"members": [{"kaktus": "c"}, {"kaktus": "a", "weight": 2, "healthy": True}]}),
    ("a map", ["labels"], {"labels": {"a": "1", "b": "2"}}, {"labels": {"b": "3"}}, {"labels": {"b": "3"}}),
    ("a map of parts", ["limits"], {"limits": {"a": {"rate": "1", "used": "5"}, "b": {"rate": "1"}}},
     {"limits": {"a": {"rate": "2", "used": "6"}, "c": {"rate": "3", "used": "7"}}},
     {"limits": {"a": {"rate": "2", "used": "5"}, "c": {"rate": "3"}}}),
    ("one of several for another", ["network"], {}, {"address": None, "network": "::/0"},
     {"address": None, "network": "::/0"}),
    ("nothing of the server's", ["name"], {"status": {"calls": 3}}, {"name": "new", "status": {"calls": 4}},
     {"name": "new", "status": {"calls": 3}}),
]  # fmt: skip


@pytest.mark.parametrize(("mask", "before", "sent", "after"), [row[1:] for row in CHANGES], ids=[
    row[0] for row in CHANGES
])  # fmt: skip
def test_a_mask_changes_the_fields_it_names_and_no_others(
    mask: list[str], before: dict[str, Any], sent: dict[str, Any], after: dict[str, Any]
) -> None:
    changed = balancer(**before)
    apply_mask(changed, balancer(**sent), fields_of_mask(KIND, balancer(**sent), mask))
    assert as_json(changed) == as_json(balancer(**after))


IMMUTABLE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    # case, stored, sent, the path of the immutable field (empty: accepted)
    ("a field", {"farm": "a"}, {"farm": "b"}, "farm"),
    ("a part's field", {"health": {"path": "/", "zone": "a"}}, {"health": {"path": "/", "zone": "b"}}, "health.zone"),
    ("a part's field emptied", {"health": {"path": "/", "zone": "a"}}, {"health": {"path": "/"}}, "health.zone"),
    ("a new part", {}, {"health": {"path": "/", "zone": "b"}}, ""),
    ("a part's other field", {"health": {"path": "/", "zone": "a"}}, {"health": {"path": "/b", "zone": "a"}}, ""),
    ("an element's field", {"members": [{"kaktus": "a", "mac": "x"}, {"kaktus": "b", "mac": "y"}]},
     {"members": [{"kaktus": "b", "mac": "z"}]}, "members[0].mac"),
    ("an element gone", {"members": [{"kaktus": "a", "mac": "x"}, {"kaktus": "b", "mac": "y"}]},
     {"members": [{"kaktus": "b", "mac": "y"}, {"kaktus": "c", "mac": "z"}]}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "path"), [row[1:] for row in IMMUTABLE], ids=[row[0] for row in IMMUTABLE])
def test_immutable_fields_of_parts_cannot_be_changed(before: dict[str, Any], after: dict[str, Any], path: str) -> None:
    if not path:
        check_immutable(KIND, balancer(**before), balancer(**after))
        return
    with pytest.raises(Refusal) as refused:
        check_immutable(KIND, balancer(**before), balancer(**after))
    assert refused.value.message == f"{path}: can't be changed; create another balancer"


def test_new_references_are_found_in_parts() -> None:
    before = balancer(kaktus="a", members=[{"kaktus": "b"}], status={"kaktus": "x"})
    after = balancer(
        kaktus="a", members=[{"kaktus": "c"}, {"kaktus": "b"}], status={"kaktus": "y"}, limits={"l": {"kaktus": "d"}}
    )
    assert new_references(before, after) == [
        ("members[0].kaktus", "Kaktus", "c"),
        ("limits['l'].kaktus", "Kaktus", "d"),
    ]
    assert new_references(None, before) == [
        ("farm", "Farm", "north"),
        ("kaktus", "Kaktus", "a"),
        ("members[0].kaktus", "Kaktus", "b"),
    ]


TEXT = st.text("ab/", max_size=3)
MEMBERS = st.lists(
    st.fixed_dictionaries({"kaktus": st.sampled_from("abcd"), "weight": st.integers(0, 2), "healthy": st.booleans()}),
    max_size=4,
    unique_by=lambda member: str(member["kaktus"]),
)
BALANCERS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT,
        "members": MEMBERS,
        "labels": st.dictionaries(TEXT, TEXT, max_size=3),
        "limits": st.dictionaries(TEXT, st.fixed_dictionaries({"rate": st.integers(0, 2), "used": st.integers(0, 2)})),
        "health": st.fixed_dictionaries({"path": TEXT, "answered": st.integers(0, 2)}),
        "address": TEXT,
        "status": st.fixed_dictionaries({"calls": st.integers(0, 2)}),
    },
).map(lambda fields: stub("Balancer", **fields))
PATHS = st.sets(st.sampled_from(["name", "members", "labels", "limits", "health", "health.path", "address", "network"]))


def writable_part(message: Message) -> Message:
    """The message without its output-only fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    clear_output_only(copy)
    return copy


@given(BALANCERS, BALANCERS, PATHS)
def test_applying_a_mask_is_idempotent_and_keeps_other_fields(before: Any, sent: Any, paths: set[str]) -> None:
    once = type(before)()
    once.CopyFrom(before)
    apply_mask(once, sent, paths)
    twice = type(before)()
    twice.CopyFrom(once)
    apply_mask(twice, sent, paths)
    assert once == twice
    assert once.status == before.status
    for name in ("name", "members", "labels", "limits", "health", "address"):
        source = sent if name in paths else before
        if name != "health" or "health.path" not in paths:
            assert getattr(writable_part(once), name) == getattr(writable_part(source), name)


@given(BALANCERS, BALANCERS)
def test_a_client_cannot_write_output_only_fields(before: Any, sent: Any) -> None:
    after = type(before)()
    after.CopyFrom(before)
    apply_mask(after, sent, fields_of_mask(KIND, sent, []))
    used = {name: limit.used for name, limit in before.limits.items()}
    healthy = {member.kaktus: member.healthy for member in before.members}
    assert all(limit.used == used.get(name, 0) for name, limit in after.limits.items())
    assert all(member.healthy == healthy.get(member.kaktus, False) for member in after.members)
    assert after.health.answered == (before.health.answered if after.HasField("health") else 0)


@given(st.one_of(st.ip_addresses().map(str), st.text("0123456789abcdef:./%", max_size=20)))
def test_only_the_canonical_text_of_an_address_is_accepted(text: str) -> None:
    import ipaddress

    accepted = not list(rules.problems(options_pb2.Rule(ip=options_pb2.FAMILY_ANY), text))
    if accepted:
        assert str(ipaddress.ip_address(text)) == text
    network = not list(rules.problems(options_pb2.Rule(cidr=options_pb2.FAMILY_ANY), text))
    assert not network or str(ipaddress.ip_network(text)) == text


def test_references_of_an_instance_include_list_elements() -> None:
    web = instance_pb2.Instance(project="p", zone="z", volumes=["a", "b"], kaktus="k")
    assert [(where, kind) for where, kind, _ in new_references(None, web)] == [
        ("project", "Project"),
        ("zone", "Zone"),
        ("volumes[0]", "Volume"),
        ("volumes[1]", "Volume"),
    ]
