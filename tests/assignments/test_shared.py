"""Stories of a vnet that several hosts hold: one that fails shows, one that is offline holds up nobody."""

from random import Random

from kahuna.domain.assignments import intake, shared
from kahuna.domain.assignments.assignment import Region, Row
from kahuna.domain.assignments.intake import Dropped, Session
from kahuna.domain.assignments.shared import Shared, Summary, summary
from kowa.assignments import GONE, PRESENT, RELEASED, Holding, Listing
from kowa.v2 import meta_pb2

AGENTS = frozenset("abc")
ALL = Region(AGENTS, connected=AGENTS)


def held_by(holders: str, where: Region = ALL) -> Shared:
    return shared.held_by(Shared(), where, set(holders))


def carry_out(vnet: Shared, where: Region, agents: str) -> Shared:
    for agent in agents:
        told = shared.to_send(vnet, agent)
        assert told is not None
        taken = shared.take_report(vnet, where, agent, Session(told), told)
        assert taken.dropped is None
        vnet = taken.object
    return vnet


def test_without_holders_it_is_ready_at_once() -> None:
    assert summary(Shared(), ALL).state == meta_pb2.STATE_READY


def test_it_is_ready_when_each_connected_holder_has_it() -> None:
    where = ALL.closed("c")
    vnet = held_by("abc", where)
    assert summary(vnet, where) == Summary((), ("a", "b"), (), ("c",))
    vnet = carry_out(vnet, where, "a")
    assert summary(vnet, where).state == meta_pb2.STATE_PENDING
    vnet = carry_out(vnet, where, "b")
    assert summary(vnet, where) == Summary(("a", "b"), (), (), ("c",))
    assert summary(vnet, where).state == meta_pb2.STATE_READY


def test_it_is_pending_while_no_holder_is_connected() -> None:
    nobody = Region(AGENTS)
    assert summary(held_by("ab", nobody), nobody).state == meta_pb2.STATE_PENDING


def test_one_that_fails_shows_until_it_succeeds_or_the_vnet_changes() -> None:
    vnet = carry_out(held_by("ab"), ALL, "a")
    told = shared.to_send(vnet, "b")
    assert told is not None
    vnet = intake.take_failure(vnet, "b", Session(told), told).object
    assert (summary(vnet, ALL).failed, summary(vnet, ALL).state) == (("b",), meta_pb2.STATE_ERROR)
    assert summary(carry_out(vnet, ALL, "b"), ALL).state == meta_pb2.STATE_READY
    newer = shared.changed(vnet, ALL, 2)
    assert summary(newer, ALL).state == meta_pb2.STATE_PENDING
    assert intake.take_failure(newer, "b", Session(told), told).object == newer, "of the generation before"


def test_who_holds_it_no_more_releases_it_alone() -> None:
    vnet = carry_out(held_by("ab"), ALL, "ab")
    vnet = shared.held_by(vnet, ALL, {"a"})
    assert shared.to_send(vnet, "b") == Holding(RELEASED, 3)
    assert summary(vnet, ALL).state == meta_pb2.STATE_READY
    assert carry_out(vnet, ALL, "b").of("b") is None


def test_a_deletion_ends_when_the_connected_have_released_and_says_who_is_still_to_come() -> None:
    vnet = carry_out(held_by("abc"), ALL, "abc")
    where = ALL.closed("c")
    vnet = shared.marked(vnet, where)
    assert not summary(vnet, where).is_deleted
    vnet = carry_out(vnet, where, "ab")
    assert summary(vnet, where).is_deleted
    assert summary(vnet, where).offline == ("c",)
    assert vnet.row == Row.MARKED, "its number is not given to another vnet before"
    assert carry_out(vnet, ALL, "c").row == Row.REMOVED
    assert shared.forgotten(vnet, ALL.without("c"), "c").row == Row.REMOVED


def test_what_was_never_sent_to_an_offline_host_is_not_waited_for() -> None:
    where = ALL.closed("c")
    vnet = shared.marked(carry_out(held_by("c", where), where, ""), where)
    assert vnet.row == Row.REMOVED


def test_what_a_host_lists_without_an_assignment_it_is_told_to_release() -> None:
    listing = Listing(Holding(PRESENT, 8, 1))
    vnet = shared.take_listing(held_by("a"), ALL, "b", Session(listing.holding), listing).object
    assert shared.to_send(vnet, "b") == Holding(RELEASED, 9)


def test_what_does_not_follow_is_dropped() -> None:
    vnet = held_by("a")
    told = shared.to_send(vnet, "a")
    assert told is not None
    for agent, session, said, dropped in (
        ("a", Session(told, living=False), told, Dropped.ENDED_SESSION),
        ("b", Session(told), told, Dropped.NOT_ASSIGNED),
        ("a", Session(told), Holding(GONE, told.epoch), Dropped.OTHER_DEMAND),
        ("a", Session(told), told._replace(epoch=7), Dropped.OTHER_EPOCH),
        ("a", Session(told), told._replace(generation=2), Dropped.NOT_DELIVERED),
        ("a", Session(None), told, Dropped.NOT_DELIVERED),
    ):
        assert shared.take_report(vnet, ALL, agent, session, said) == (vnet, dropped)
    listing = Listing(Holding(PRESENT, 1 << 62, 1))
    assert shared.take_listing(vnet, ALL, "b", Session(), listing) == (vnet, Dropped.ABSURD_EPOCH)


def test_whatever_happens_each_host_that_may_have_it_is_told_to_keep_it_or_to_release_it() -> None:
    random = Random(1)  # noqa: S311
    for _ in range(300):
        vnet, where, has = Shared(), Region(AGENTS), set[str]()
        for _ in range(30):
            agent = random.choice("abc")
            match random.choice(
                ["connect", "cut", "hold", "mark", "work", "work", "work", "change", "restart", "fence"]
            ):
                case "connect" if agent not in where.connected:
                    where = where.opened(agent)
                    listing = Listing(Holding(PRESENT, 1, 1) if agent in has else None)
                    vnet = shared.session_opened(vnet, agent)
                    vnet = shared.take_listing(vnet, where, agent, Session(listing.holding), listing).object
                case "cut":
                    where = where.closed(agent)
                case "hold" if vnet.row == Row.LIVE:
                    vnet = shared.held_by(vnet, where, set(random.sample("abc", random.randrange(4))))
                case "mark" if random.random() < 0.1:
                    vnet = shared.marked(vnet, where)
                case "change" if vnet.row == Row.LIVE:
                    vnet = shared.changed(vnet, where, vnet.generation + 1)
                case "restart":
                    where = where.restarted()
                    vnet = shared.follow(shared.restarted(vnet), where)
                case "fence":
                    where = where.without_fence(agent) if agent in where.fenced else where.with_fence(agent)
                    vnet = shared.follow(vnet, where)
                case "work" if agent in where.connected and (told := shared.to_send(vnet, agent)):
                    has = has | {agent} if told.demand == PRESENT else has - {agent}
                    vnet = shared.take_report(vnet, where, agent, Session(told), told).object
            assigned = {each.agent: each.demand for each in vnet.assignments}
            assert has <= assigned.keys(), "a host has it, and nobody will tell it to let go"
            assert GONE not in assigned.values()
            wanted = vnet.holders - where.fenced if vnet.row == Row.LIVE else set()
            assert {agent for agent, demand in assigned.items() if demand == PRESENT} == wanted
            assert (vnet.row == Row.REMOVED) <= (not assigned)
