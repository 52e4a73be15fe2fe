"""Stories of a machine that must exist once: whom it waits for, and what people are told meanwhile."""

from collections.abc import Iterable

from kahuna.domain.assignments import delivery, exclusive, intake, moves
from kahuna.domain.assignments.assignment import Assignment, Region, Row
from kahuna.domain.assignments.delivery import Reason, Waiting
from kahuna.domain.assignments.exclusive import Exclusive
from kahuna.domain.assignments.intake import Dropped, Session
from kowa.assignments import GONE, PREPARE, PRESENT, RELEASED, RUNNING, SWITCHED, HandOver, Holding, Listing


def region(agents: Iterable[str], connected: Iterable[str] = (), fenced: Iterable[str] = ()) -> Region:
    return Region(frozenset(agents), connected=frozenset(connected), fenced=frozenset(fenced))


def lists(object_: Exclusive, where: Region, agent: str, listing: Listing) -> tuple[Exclusive, Region]:
    where = where.opened(agent).with_listing(agent)
    object_ = exclusive.session_opened(object_, agent)
    return intake.take_listing(object_, where, agent, Session(listing.holding), listing).object, where


def carries_out(object_: Exclusive, where: Region, agent: str, told: Holding | None = None) -> Exclusive:
    told = told or sent(object_, where, agent)
    return intake.take_report(object_, where, agent, Session(told), told).object


def sent(object_: Exclusive, where: Region, agent: str) -> Holding:
    found = delivery.to_send(object_, where, agent, None)
    assert isinstance(found, Holding), found
    return found


def test_a_machine_whose_host_never_came_is_deleted_at_once() -> None:
    where = region("ab")
    machine = exclusive.created("a", where)
    assert exclusive.marked(machine, where).row == Row.REMOVED


def test_a_machine_that_a_host_may_have_made_is_destroyed_there_before_its_row_ends() -> None:
    where = region("ab", connected="a")
    machine = exclusive.marked(exclusive.created("a", where), where)
    assert sent(machine, where, "a") == Holding(GONE, 2)
    assert carries_out(machine, where, "a").row == Row.REMOVED


def test_a_machine_that_was_never_sent_is_placed_anew_without_an_answer() -> None:
    where = region("ab", connected="b")
    machine = exclusive.moved(exclusive.created("a", where), where, "b")
    assert sent(machine, where, "b").demand == PRESENT
    assert machine.of("a") is None


def test_a_move_waits_until_the_old_host_has_let_go_and_says_so() -> None:
    where = region("ab", connected="ab")
    machine = exclusive.moved(exclusive.created("a", where), where, "b")
    assert delivery.waits_for(machine, where) == Waiting(Reason.NOT_RELEASED, ("a",))
    assert delivery.waits_for(machine, where.closed("a")) == Waiting(Reason.HOST_OFFLINE, ("a",))
    assert machine.of("b") is None
    machine = carries_out(machine, where, "a")
    assert sent(machine, where, "b").demand == PRESENT
    assert delivery.waits_for(machine, where) is None


def test_after_a_start_the_host_that_lists_a_machine_keeps_it_at_once() -> None:
    where = region("ab", connected="a")
    machine = exclusive.restarted(exclusive.created("a", where))
    held = Holding(PRESENT, 1, 1)
    machine, where = lists(machine, where.restarted(), "a", Listing(held, RUNNING))
    assert machine.uncertain
    assert delivery.to_send(machine, where, "a", held) == held


def test_after_a_start_a_host_that_does_not_list_a_machine_waits_for_all_others_by_name() -> None:
    where = region("abc", connected="a")
    machine = exclusive.restarted(exclusive.created("a", where))
    machine, where = lists(machine, where.restarted(), "a", Listing(None))
    assert delivery.to_send(machine, where, "a", None) == Waiting(Reason.HOST_OFFLINE, ("b", "c"))
    where = where.opened("b").opened("c")
    assert delivery.waits_for(machine, where) == Waiting(Reason.NOT_LISTED, ("b", "c"))
    machine, where = lists(machine, where, "b", Listing(None))
    machine, where = lists(machine, where, "c", Listing(None))
    assert not machine.uncertain
    assert sent(machine, where, "a").demand == PRESENT


def test_a_machine_that_another_host_holds_after_a_restore_stays_there_until_it_is_moved_there() -> None:
    where = region("ab", connected="ab")
    machine = exclusive.restarted(exclusive.created("a", where))
    where = where.restarted()
    held = Holding(PRESENT, 7, 1)
    machine, where = lists(machine, where, "a", Listing(None))
    machine, where = lists(machine, where, "b", Listing(held, RUNNING))
    assert delivery.to_send(machine, where, "a", None) == Waiting(Reason.HELD_ELSEWHERE, ("b",))
    assert delivery.waits_for(machine, where) == Waiting(Reason.HELD_ELSEWHERE, ("b",))
    machine = carries_out(exclusive.moved(machine, where, "b"), where, "a", Holding(RELEASED, 8))
    assert delivery.to_send(machine, where, "b", held) == Holding(PRESENT, 9, 1), "above the epoch that b named"
    assert not carries_out(machine, where, "b").uncertain


def test_a_machine_on_a_disk_of_its_host_alone_waits_for_no_other_host() -> None:
    where = region("a", connected="a")
    machine = exclusive.restarted(exclusive.created("a", where))
    machine, where = lists(machine, where.restarted(), "a", Listing(None))
    assert sent(machine, where, "a").demand == PRESENT


def test_a_machine_that_was_handed_over_in_a_forgotten_move_stays_with_its_target() -> None:
    where = region("abc", connected="abc")
    machine = exclusive.restarted(exclusive.created("a", where))
    where = where.restarted()
    machine, where = lists(machine, where, "a", Listing(Holding(SWITCHED, 1, 1, HandOver("c", 2))))
    machine, where = lists(machine, where, "b", Listing(None))
    machine, where = lists(machine, where, "c", Listing(Holding(PREPARE, 2), RUNNING))
    assert machine.holder == "c"
    machine = carries_out(machine, where, "a")
    assert delivery.to_send(machine, where, "c", Holding(PREPARE, 2)) == Holding(PRESENT, 3, 1)


def test_a_fence_concerns_only_what_the_fenced_host_may_have() -> None:
    where = region("abc", connected="ab", fenced="c")
    machine = exclusive.fence_read(exclusive.created("a", where), where, "c", "b", None)
    assert (machine.holder, machine.of("c")) == ("a", None)
    where = region("abc", connected="bc", fenced="a")
    machine = exclusive.fence_read(exclusive.created("a", where.without_fence("a").opened("a")), where, "a", "b", None)
    assert machine.holder == "b"
    assert [(each.agent, each.demand) for each in machine.assignments] == [("a", RELEASED), ("b", PRESENT)]
    assert sent(machine, where, "b").demand == PRESENT, "the fenced can't write, so nobody waits for its answer"


def test_what_is_sent_is_judged_again_when_it_is_sent() -> None:
    where = region("ab", connected="ab")
    told = Holding(PRESENT, 1, 1)
    machine = exclusive.created("a", where).with_assignment(Assignment("b", RELEASED, 2, sent=True))
    assert delivery.to_send(machine, where, "a", None) == Waiting(Reason.NOT_RELEASED, ("b",))
    assert delivery.to_send(machine, where, "a", Holding(SWITCHED, 1, 1)) == Waiting(Reason.NOT_RELEASED, ("b",))
    assert delivery.to_send(machine, where, "a", told) == told
    assert delivery.to_send(machine, where.with_fence("b"), "a", None) == told
    assert delivery.to_send(machine, where.with_fence("a"), "a", told) == Waiting(Reason.FENCED, ("a",))
    doomed = machine.with_assignment(Assignment("a", GONE, 3, sent=True))
    for at_that_time in (where, where.with_fence("b")):
        assert delivery.to_send(doomed, at_that_time, "a", told) == Waiting(Reason.NOT_RELEASED, ("b",))
    assert delivery.to_send(doomed, where, "b", None) == Holding(RELEASED, 2)


def test_a_fenced_host_that_lists_a_machine_is_told_to_release_it() -> None:
    where = region("abc", connected="abc", fenced="c")
    machine = exclusive.created("a", where)
    found = exclusive.restarted(machine)._replace(found=frozenset("c"))
    for before, told in ((found, None), (machine, Holding(PRESENT, 5, 1))):
        after = exclusive.fence_read(before, where, "c", "b", told)
        assert sent(after, where, "c").demand == RELEASED
        assert after.found == frozenset()
    assert exclusive.fence_read(exclusive.restarted(machine), where, "c", "b", None).of("c") is None
    removed = machine._replace(row=Row.REMOVED, assignments=())
    assert exclusive.fence_read(removed, where, "c", "b", Holding(PRESENT, 5, 1)).assignments == ()


def test_a_live_move_ends_with_its_source_or_target_and_with_no_other_host() -> None:
    where = region("abc", connected="abc")
    machine = exclusive.live_move_begun(carries_out(exclusive.created("a", where), where, "a"), where, "b")
    for agent, moving_to in (("a", ""), ("b", ""), ("c", "b")):
        successor = "c" if agent == "a" else "a"
        fenced = exclusive.fence_read(machine, where.with_fence(agent), agent, successor, None)
        forgotten = exclusive.forgotten(machine, where.without(agent), agent, successor)
        assert (fenced.moving_to, forgotten.moving_to) == (moving_to, moving_to)


def test_a_machine_that_was_handed_over_to_a_host_that_is_lost_since_starts_again_at_its_source() -> None:
    where = region("ab", connected="ab")
    machine = exclusive.live_move_begun(carries_out(exclusive.created("a", where), where, "a"), where, "b")
    switched = Holding(SWITCHED, 1, 1, HandOver("b", 2))
    held = Holding(PRESENT, 1, 1)
    for lost in (where.with_fence("b"), where.without("b")):
        after = intake.take_report(machine, lost, "a", Session(held), switched).object
        assert after.holder == "a"
    after = intake.take_report(machine, where, "a", Session(held), switched).object
    assert (after.holder, after.moving_to) == ("b", "")
    assert sent(after, where, "a").demand == RELEASED


def test_the_holder_waits_while_its_own_fence_stands() -> None:
    where = region("a", connected="a", fenced="a")
    machine = exclusive.created("a", where)
    assert machine.assignments == ()
    assert delivery.waits_for(machine, where) == Waiting(Reason.FENCED, ("a",))
    made = exclusive.created("a", where.without_fence("a"))
    alone = exclusive.fence_read(made, where, "a", "a", None)
    assert [(each.agent, each.demand) for each in alone.assignments] == [("a", RELEASED)]


def test_an_epoch_that_no_kahuna_can_have_given_is_refused() -> None:
    where = region("ab", connected="a")
    machine = exclusive.created("a", where)
    listing = Listing(Holding(PRESENT, 2**63 - 1, 1), RUNNING)
    taken = intake.take_listing(machine, where, "a", Session(listing.holding), listing)
    assert taken == (machine, Dropped.ABSURD_EPOCH)


def test_a_failure_is_of_the_generation_that_it_names() -> None:
    where = region("ab", connected="a")
    machine = exclusive.created("a", where)
    told = sent(machine, where, "a")
    failed = intake.take_failure(machine, "a", Session(told), told).object.of("a")
    assert failed is not None
    assert failed.failed
    newer = exclusive.changed(machine, where, 2)
    assert intake.take_failure(newer, "a", Session(told), told).object == newer


def test_a_change_while_a_machine_moves_keeps_the_order_to_hand_it_over_and_a_stop_ends_it() -> None:
    where = region("ab", connected="ab")
    machine = exclusive.live_move_begun(carries_out(exclusive.created("a", where), where, "a"), where, "b")
    machine = carries_out(machine, where, "b")
    told, order = Holding(PRESENT, 1, 1), HandOver("b", 2)
    assert delivery.to_send(machine, where, "a", told) == told._replace(hand_over=order)
    resized = exclusive.changed(machine, where, 2)
    assert delivery.to_send(resized, where, "a", told) == Holding(PRESENT, 1, 2, order)
    stopped = exclusive.changed(machine, where, 2, runs=False)
    assert delivery.to_send(stopped, where, "a", told) == Holding(PRESENT, 1, 2)
    assert sent(stopped, where, "b").demand == RELEASED


def test_a_move_that_can_not_begin_says_why() -> None:
    where = region("abc", connected="abc", fenced="c")
    machine = exclusive.created("a", where)
    live = moves.obstacle_to_live_move
    assert live(machine, where, "b") == "its host has not reported it running yet; wait for that, or move it without"
    machine = carries_out(machine, where, "a")
    assert live(machine, where, "b") == ""
    assert live(machine, where, "a") == "it is there already"
    assert live(machine, where, "c") == "that host is fenced; choose another, or wait until it has its storage back"
    assert live(machine, where, "d") == "that host can't reach it; choose one that does"
    moving = exclusive.live_move_begun(machine, where, "b")
    assert moves.obstacle_to_move(moving, where, "b") == "a live move is under way; call that off first"
    assert live(exclusive.restarted(machine), where, "b").startswith("not all hosts have said yet")
    left = exclusive.moved(exclusive.moved(machine, where, "b"), where, "a")
    assert moves.obstacle_to_move(exclusive.marked(left, where), where, "b") == "it is being deleted"
