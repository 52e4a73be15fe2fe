"""What names what: the view's index, and the same read from the database."""

import pytest

from kahuna.domain.reach import Link
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store import transaction
from kahuna.store.resource import CONTRACT
from kahuna.store.view import Change, Commit, Entry, Transition, View
from kowa.v2 import instance_pb2, meta_pb2
from tests.control_plane import ControlPlane
from tests.site import make_site


def test_a_transaction_and_the_view_agree(cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few ids one query may name."""
    site = make_site(cloud)
    site.connect_host()
    site.instance("web")
    monkeypatch.setattr(transaction, "MAX_IDS", 1)
    agent, view = site.agent.meta.id, cloud.kahuna.store.view
    ids = {kind: set(view.entries(kind)) for kind in reach_of_kinds().order if kind != "Kiwi"}
    assert all(ids.values())

    def work(tx: transaction.Transaction) -> None:
        for kind in ids:
            for reference in CONTRACT.kinds[kind].references:
                assert tx.targets(kind, reference.name, ids[kind]) == view.targets(kind, reference.name, ids[kind])
            for id_ in ids[kind]:
                assert reach_of_kinds().agents(tx, kind, id_) == reach_of_kinds().agents(view, kind, id_) == {agent}
                assert reach_of_kinds().concerns(tx, agent, kind, id_)
                assert not reach_of_kinds().concerns(tx, id_, kind, id_)
        assert reach_of_kinds().slice(tx, agent) == reach_of_kinds().slice(view, agent)

    cloud.loop.run(cloud.kahuna.store.run(work))


def links(*lines: str) -> list[Link]:
    """`volumes a`: links of a machine called web."""
    return [Link("Instance", field, "web", target) for field, target in (one.split() for one in lines)]


def test_the_view_knows_each_of_several_that_a_field_names() -> None:
    """Once, even if the field says it twice, and not what is empty."""
    view, web = View(), instance_pb2.Instance(meta=meta_pb2.Meta(id="web"), kaktus="h1", volumes=["a", "b", "a", ""])

    def commit(message: instance_pb2.Instance | None) -> Transition:
        revision, heard = view.revision + 1, list[Transition]()
        stop = view.follow(lambda _, transitions: heard.extend(transitions))
        entry = Entry(message.SerializeToString(), b"") if message else None
        view.apply(Commit(revision, (Change(revision, "Instance", "web", entry),)))
        stop()
        return heard[0]

    assert sorted(commit(web).added) == links("kaktus h1", "volumes a", "volumes b")
    web.volumes[:] = ["b", "c"]
    changed = commit(web)
    assert (changed.added, changed.dropped) == (links("volumes c"), links("volumes a"))
    assert view.sources("Instance", "volumes", {"a"}) == set()
    assert view.sources("Instance", "volumes", {"b", "c"}) == {"web"}
    assert view.targets("Instance", "volumes", {"web", "db"}) == {"b", "c"}
    assert sorted(commit(None).dropped) == links("kaktus h1", "volumes b", "volumes c")
    assert not view.sources("Instance", "kaktus", {"h1"})
