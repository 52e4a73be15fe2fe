"""References: the view's index and the database give the same links."""

import pytest

from kahuna.domain.reach import Link
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store import transaction
from kahuna.store.resource import CONTRACT
from kahuna.store.view import Change, Commit, Entry, Transition, View
from kowa.v2 import instance_pb2, meta_pb2
from tests.control_plane import ControlPlane
from tests.site import make_site


def test_references_read_in_a_transaction_and_from_the_view_agree(
    cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a query may name only one id."""
    site = make_site(cloud)
    site.connect_host()
    site.add_instance("web")
    monkeypatch.setattr(transaction, "MAX_IDS", 1)
    agent, view = site.agent.meta.id, cloud.kahuna.store.view
    ids = {kind: set(view.entries(kind)) for kind in reach_of_kinds().order if kind != "Kiwi"}
    assert all(ids.values())

    def work(tx: transaction.Transaction) -> None:
        for kind in ids:
            for reference in CONTRACT.kinds[kind].message.references:
                assert tx.targets(kind, reference.name, ids[kind]) == view.targets(kind, reference.name, ids[kind])
            for id_ in ids[kind]:
                assert reach_of_kinds().agents(tx, kind, id_) == reach_of_kinds().agents(view, kind, id_) == {agent}
                assert reach_of_kinds().concerns(tx, agent, kind, id_)
                assert not reach_of_kinds().concerns(tx, id_, kind, id_)
        assert reach_of_kinds().slice(tx, agent) == reach_of_kinds().slice(view, agent)

    cloud.loop.run(cloud.kahuna.store.run(work))


def links(*lines: str) -> list[Link]:
    """Links of the instance web, from texts such as `volumes a`."""
    return [Link("Instance", field, "web", target) for field, target in (one.split() for one in lines)]


def test_the_view_indexes_each_id_of_a_repeated_reference() -> None:
    """Each id once, also if the field repeats it, and no empty id."""
    view, web = View(), instance_pb2.Instance(meta=meta_pb2.Meta(id="web"), kaktus="h1", volumes=["a", "b", "a", ""])

    def commit(message: instance_pb2.Instance | None) -> Transition:
        revision, received = view.revision + 1, list[Transition]()
        stop = view.follow(lambda _, transitions: received.extend(transitions))
        entry = Entry(message.SerializeToString(), b"") if message else None
        view.apply(Commit(revision, (Change(revision, "Instance", "web", entry),)))
        stop()
        return received[0]

    assert sorted(commit(web).added) == links("kaktus h1", "volumes a", "volumes b")
    web.volumes[:] = ["b", "c"]
    changed = commit(web)
    assert (changed.added, changed.dropped) == (links("volumes c"), links("volumes a"))
    assert view.sources("Instance", "volumes", {"a"}) == set()
    assert view.sources("Instance", "volumes", {"b", "c"}) == {"web"}
    assert view.targets("Instance", "volumes", {"web", "db"}) == {"b", "c"}
    assert sorted(commit(None).dropped) == links("kaktus h1", "volumes b", "volumes c")
    assert not view.sources("Instance", "kaktus", {"h1"})
