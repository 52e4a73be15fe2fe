"""Values that an earlier version accepted and this one refuses can stay, as long as they are not changed."""

import pytest

from kahuna.domain.errors import Refusal
from kahuna.domain.validation import check_resource
from kowa.v2 import instance_pb2

STORED = {
    "name": "web",
    "project": "p",
    "zone": "z",
    "vcpus": 1,
    "memory": 1 << 30,
    "volumes": ["v"],
    "ssh_keys": ["hello"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"description": "other"}, ""),
        ({"vcpus": 0}, "vcpus: is required"),
        ({"ssh_keys": ["hello", "hello"]}, "ssh_keys[0]: is no SSH public key"),
        ({"ssh_keys": ["hullo"]}, "ssh_keys[0]: is no SSH public key"),
        ({"ssh_keys": []}, ""),
    ],
)
def test_an_update_checks_only_the_changed_values(change: dict[str, object], message: str) -> None:
    before, after = instance_pb2.Instance(**STORED), instance_pb2.Instance(**STORED | change)  # type: ignore[arg-type]
    if not message:
        return check_resource(after, before)
    with pytest.raises(Refusal, match=message.replace("[", r"\[")):
        check_resource(after, before)
    return None


def test_a_create_checks_all_values() -> None:
    with pytest.raises(Refusal, match="ssh_keys"):
        check_resource(instance_pb2.Instance(**STORED))  # type: ignore[arg-type]
