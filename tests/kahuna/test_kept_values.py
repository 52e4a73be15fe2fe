"""What an earlier version took and today's refuses stays, as long as it is not what is changed."""

import pytest

from kahuna.domain.errors import Refusal
from kahuna.domain.validation import check_resource
from kowa.v2 import instance_pb2

KEPT = {
    "name": "web",
    "project": "p",
    "zone": "z",
    "vcpus": 1,
    "memory": 1 << 30,
    "volumes": ["v"],
    "ssh_keys": ["hello"],
}


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"description": "other"}, ""),
        ({"vcpus": 0}, "vcpus: is required"),
        ({"ssh_keys": ["hello", "hello"]}, "ssh_keys[0]: is no SSH public key"),
        ({"ssh_keys": ["hullo"]}, "ssh_keys[0]: is no SSH public key"),
        ({"ssh_keys": []}, ""),
    ],
)
def test_only_what_changes_is_judged_by_todays_rules(change: dict[str, object], refused: str) -> None:
    before, after = instance_pb2.Instance(**KEPT), instance_pb2.Instance(**KEPT | change)  # type: ignore[arg-type]
    if not refused:
        return check_resource(after, before)
    with pytest.raises(Refusal, match=refused.replace("[", r"\[")):
        check_resource(after, before)
    return None


def test_a_new_one_is_judged_whole() -> None:
    with pytest.raises(Refusal, match="ssh_keys"):
        check_resource(instance_pb2.Instance(**KEPT))  # type: ignore[arg-type]
