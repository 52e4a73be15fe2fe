"""The methods of every kind of resource, in transactions: create, update, delete, verbs.

Users' calls, rules, timers and other kinds use the same methods, with the same checks, operation and audit.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, NamedTuple, TypeVar, cast

from google.protobuf.message import Message
from sqlmodel import select

from kahuna.domain import lifecycle
from kahuna.domain.changes import apply_mask, check_immutable, clear_output_only, fields_of_mask, new_references
from kahuna.domain.errors import Refusal, invalid, not_found, on_field, quoted
from kahuna.domain.reach import AGENT
from kahuna.domain.validation import check_resource, normalize
from kahuna.kinds import command, deletion, tracking
from kahuna.kinds.console import Consoles
from kahuna.kinds.reach import reach_of_kinds
from kahuna.kinds.tracking import Cause
from kahuna.kinds.verbs import Form, form_of
from kahuna.security.identity import ScopedView
from kahuna.security.keys import KeyHasher
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, TABLES, Lock, Resource, column_values, copy_of, meta, own_columns
from kahuna.store.transaction import StaleRead, Transaction, references_to
from kowa import contract
from kowa.v2 import operation_pb2

M = TypeVar("M", bound=Message)
Kinds = Mapping[str, "Kind[Any]"]
KINDS: dict[str, type["Kind[Any]"]] = {}  # the subclasses, by kind; any other kind is a plain Kind
MAX_NAMED_CHILDREN = 5  # in a refusal


class Outcome(NamedTuple, Generic[M]):
    """The result of a change: the changed resource, and its operation, if there is one."""

    resource: M
    operation: operation_pb2.Operation | None


class Call(NamedTuple):
    """One call: its cause, with the caller, and the view as that caller sees it."""

    cause: Cause
    reader: ScopedView


@dataclass(frozen=True, slots=True)
class Platform:
    """Dependencies of all kinds. `random` is cryptographically secure."""

    store: Store
    hasher: KeyHasher
    consoles: Consoles
    random: Random


class Kind(Generic[M]):
    """The rules and methods of one kind. A subclass fills hooks and declares verbs (kinds/verbs.py).

    A method runs in one transaction, in this order, and any step may raise Refusal:

    - create: defaults, the contract's rules, locks on the resources it names; `before_create`; `add_row`;
      `after_create`; its operation starts.
    - update: mask, the contract's rules, locks; `before_update` (and `before_part_update` of its whole); the row;
      `after_update`; its operation. A verb that changes state runs before the row is written.
    - delete: `before_delete`; the mark; its operation. The row is removed when its agents report that nothing is left.
    - an agent's report: the row's status and operations; `after_report`; `after_part_report` of its whole.
    """

    def __init_subclass__(cls, table: type[Resource] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if table is not None:
            KINDS[table.__name__] = cls

    def __init__(self, name: str, platform: Platform, kinds: Kinds) -> None:
        self.name, self.platform, self.kinds = name, platform, kinds
        self.table, self.described = TABLES[name], CONTRACT.kinds[name]

    # Hooks. The docstring of the class says when they run.

    def before_create(self, tx: Transaction, resource: M) -> None:
        """Completes a new resource, or refuses it."""

    def add_row(self, tx: Transaction, resource: M) -> M:
        """Adds the row. Returns the resource for the caller's answer."""
        return tx.add(self.name, resource)

    def after_create(self, tx: Transaction, cause: Cause, resource: M) -> None:
        """Makes the changes that follow from a new resource, which is also the caller's answer."""

    def before_update(self, tx: Transaction, before: M, after: M) -> None:
        """Completes a changed resource, or refuses the change."""

    def before_part_update(self, whole: M, before: Message, after: Message) -> None:
        """Refuses a change of a part that does not fit `whole`, a resource of this kind."""

    def after_update(self, tx: Transaction, cause: Cause, before: M, after: M) -> None:
        """Makes the changes that follow from an update; `after` is also the caller's answer."""

    def before_delete(self, tx: Transaction, resource: M) -> None:
        """Refuses to mark a resource for deletion that is still needed."""

    def why_not_as_wanted(self, resource: M, *, seen: bool) -> str:
        """Why a resource that its agent calls applied is not as wanted, by its status; empty if it is.

        `seen`: the status is that of this report, and not kept from an earlier one.
        """
        return ""

    def after_report(self, tx: Transaction, resource: M, *, applied: bool) -> None:
        """Makes the changes that follow from an agent's report; `applied`: its current generation, with its status."""
        whole = self.whole(tx, resource)
        if whole is not None:
            self.kinds[self.table.part_of].after_part_report(tx, meta(whole).id)

    def after_part_report(self, tx: Transaction, id_: str) -> None:
        """Makes the changes that follow from an agent's report on a part of a resource of this kind."""

    def redact_plan(self, resource: M) -> None:
        """Removes from the answer to `validate_only` what only a real change may show."""

    # The standard methods.

    def create(self, tx: Transaction, cause: Cause, resource: M, *, whole: str = "") -> Outcome[M]:
        """Creates a resource; `whole` is the id of the resource that it is a part of, if any. Raises Refusal."""
        wanted = copy_of(resource)
        clear_output_only(wanted)
        if whole:
            setattr(wanted, CONTRACT.kinds[self.table.part_of].noun, whole)
        normalize(wanted)
        wanted.ClearField("meta")
        check_resource(wanted)
        self._lock_references(tx, cause, wanted)
        self.before_create(tx, wanted)
        added = self.add_row(tx, wanted)
        self.after_create(tx, cause, added)
        return Outcome(added, tracking.begin(tx, cause, self.name, added))

    def update(self, tx: Transaction, cause: Cause, sent: M, paths: Collection[str]) -> Outcome[M]:
        """Changes the fields at `paths` of the resource with `meta.id`. If `meta.etag` is set, it must be current."""
        before = self._visible(tx, cause, meta(sent).id, meta(sent).etag, unmarked=True)
        after = copy_of(before)
        apply_mask(after, sent, paths)
        normalize(after)
        check_immutable(self.described, before, after)
        check_resource(after, before)
        self._lock_references(tx, cause, after, before)
        self.before_update(tx, before, after)
        whole = self.whole(tx, before)
        if whole is not None and not meta(whole).HasField("delete_time"):
            self.kinds[self.table.part_of].before_part_update(whole, before, after)
        return self._put(tx, cause, before, after)

    def delete(self, tx: Transaction, cause: Cause, id_: str, etag: str = "") -> Outcome[M]:
        """Marks a resource; its row is removed when its agents report it gone. Marking it again changes nothing."""
        resource = self._visible(tx, cause, id_, etag)
        if not meta(resource).HasField("delete_time"):
            self._check_holders(tx, resource)
            self.before_delete(tx, resource)
            self._check_children(tx, resource)
        marked = cast(M, tx.mark(self.name, id_))
        operation = tracking.begin(tx, cause, self.name, marked)
        deletion.sweep(tx, self.name, id_)
        return Outcome(marked, operation)

    def ensure(self, tx: Transaction, cause: Cause, resource: M) -> Outcome[M]:
        """Creates the resource, or updates the one with its name to the fields that are set, if they differ."""
        found = self.find_by_name(tx, cause, resource)
        if found is None:
            try:
                return self.create(tx, cause, resource)
            except Refusal as refusal:
                if refusal.reason == "NAME_TAKEN" and not refusal.violations:  # only a part's NAME_TAKEN has some
                    raise StaleRead from refusal  # another ensure has created it: run again, this one finds it
                raise
        wanted = copy_of(resource)
        meta(wanted).id = meta(found).id
        after, paths = copy_of(found), fields_of_mask(self.described, wanted, ())
        apply_mask(after, wanted, paths)
        normalize(after)
        return Outcome(found, None) if after == found else self.update(tx, cause, wanted, paths)

    def find_by_name(self, tx: Transaction, cause: Cause, resource: M) -> M | None:
        """Returns the unmarked resource with the name of this one, where names are unique."""
        columns, values = own_columns(self.name), column_values(self.name, resource)
        for unique in self.described.uniques:
            same = {name: values[name] for name, field in columns.items() if field in (*unique.fields, unique.unless)}
            counts = all(bool(value) == (columns[name] != unique.unless) for name, value in same.items())
            if "name" in unique.fields and counts:
                found = tx.session.exec(select(self.table.id).filter_by(**same, delete_time=None)).first()
                return self._visible(tx, cause, found) if found else None
        return None

    # Verbs.

    def carry_out(self, tx: Transaction, cause: Cause, verb: str, id_: str, request: Any = None) -> Outcome[M]:
        """Carries out a verb, or has its agent do so.

        A state makes an agent that has given up try again, and one whose resource is no longer as wanted.
        """
        method = self.verb(verb)
        before = self._visible(tx, cause, id_, unmarked=form_of(method) is not Form.STATE_WHEN_DELETING)
        if form_of(method) is Form.COMMAND:
            return Outcome(before, command.begin(tx, cause, self.name, before, method(request)))
        after = copy_of(before)
        if request is not None:
            self._lock_references(tx, cause, request)
        method(tx, after, request)
        return self._put(tx, cause, before, after, retry=lifecycle.has_fallen_behind(meta(before)))

    def verb(self, name: str) -> Callable[..., Any]:
        """Returns the method of a verb, named as in the contract (`plan-crush`). Raises AssertionError without one."""
        method = getattr(self, name.replace("-", "_"), None)
        assert form_of(method), f"{self.described.plural} do not serve {name}"
        return cast(Callable[..., Any], method)

    # Helpers.

    def read(self, call: Call, id_: str) -> M:
        """Returns a resource from the caller's view. Raises Refusal NOT_FOUND."""
        found = call.reader.find(self.name, id_)
        if found is None:
            raise not_found(self.described.command, id_)
        return cast(M, found)

    def whole(self, tx: Transaction, part: M, lock: Lock | None = None) -> Message | None:
        """Returns the resource that this one is a part of, if any."""
        kind = self.table.part_of
        id_ = getattr(part, CONTRACT.kinds[kind].noun) if kind else ""
        return tx.find(kind, id_, lock) if id_ else None

    def _put(self, tx: Transaction, cause: Cause, before: M, after: M, *, retry: bool = False) -> Outcome[M]:
        former_agents = {agent for _, kind, agent in new_references(after, before) if kind == AGENT}
        concerned = {id_ for agent in former_agents for _, id_ in reach_of_kinds().slice(tx, agent)}
        changed = tx.put(self.name, after)
        if retry and meta(changed).generation == meta(before).generation:
            changed = cast(M, tx.increment_generation(self.name, meta(before).id))
        self.after_update(tx, cause, before, changed)
        # A change of fields for clients only, such as labels, concerns no agent: it is done with the commit.
        concerns_agents = meta(changed).generation > meta(before).generation or meta(changed).etag == meta(before).etag
        if concerns_agents:
            operation = tracking.begin(tx, cause, self.name, changed)
        else:
            operation = tracking.record(tx, cause, self.name, changed, operation_pb2.PHASE_DONE)
        if former_agents:  # nothing waits for them any more
            tracking.explain_waiting(tx, targets=concerned)
            deletion.sweep_marked(tx)
        return Outcome(changed, operation)

    def _visible(self, tx: Transaction, cause: Cause, id_: str, etag: str = "", *, unmarked: bool = False) -> M:
        """Returns a resource, locked for a change. Raises Refusal NOT_FOUND also for one hidden from the caller."""
        found = tx.get(self.name, id_)
        if not cause.scope.sees(self.name, found):
            raise not_found(self.described.command, id_)
        if unmarked and meta(found).HasField("delete_time"):
            raise Refusal("DELETING", f"{self.described.command} {id_} is being deleted; it can't be changed any more")
        current = meta(found).etag
        if etag and etag != current:
            reason = f"the etag is {current}, not {etag}: it was changed meanwhile; read it and try again"
            raise Refusal("ETAG_MISMATCH", reason)
        return cast(M, found)

    def _lock_references(self, tx: Transaction, cause: Cause, resource: Message, before: M | None = None) -> None:
        """Locks the resources that a resource or request newly names. Raises Refusal on the field of a missing one."""
        for path, kind, id_ in new_references(before, resource):
            found, noun = tx.find(kind, id_, TABLES[kind].lock_by_reference), CONTRACT.kinds[kind].command
            if found is None or not cause.scope.sees(kind, found):
                raise invalid(path, f"no {noun} has the id {quoted(id_)}; list them to find it")
            if meta(found).HasField("delete_time"):
                raise on_field("DELETING", path, f"{noun} {id_} is being deleted; choose another")

    def _check_holders(self, tx: Transaction, resource: M) -> None:
        """Raises Refusal IN_USE while the resource that this one is a part of, or belongs to, is not being deleted."""
        part, whole = f"{self.described.command} {_name(resource)}", self.whole(tx, resource)
        if whole is not None and not meta(whole).HasField("delete_time"):
            noun = CONTRACT.kinds[self.table.part_of].command
            raise Refusal("IN_USE", f"{part} is a part of {noun} {_name(whole)}; delete that, and it goes with it")
        for field in self.table.cleared_with_target:
            kind, id_ = self.described.message.fields[field].ref, getattr(resource, field)
            holder, noun = tx.find(kind, id_) if id_ else None, CONTRACT.kinds[kind].command
            if holder is not None and not meta(holder).HasField("delete_time"):
                raise Refusal("IN_USE", f"{part} belongs to {noun} {_name(holder)}; delete the {noun} first")

    def _check_children(self, tx: Transaction, resource: M) -> None:
        """Raises Refusal HAS_CHILDREN while an unmarked resource names this one."""
        children: list[str] = []
        free: list[str] = []
        for source, field in references_to(self.name):
            names = tx.unmarked_names(source, field, meta(resource).id, MAX_NAMED_CHILDREN + 1)
            if names and field not in TABLES[source].cleared_with_target and TABLES[source].part_of != self.name:
                kind = CONTRACT.kinds[source]
                children.append(_counted(kind, names))
                reference = next(reference for reference in kind.message.references if reference.name == field)
                if not (reference.immutable or reference.output_only):
                    free += names[:MAX_NAMED_CHILDREN]
        if children:
            remedy = f"take it from {', '.join(free)} or delete them first" if free else "delete them first"
            parent = f"{self.described.command} {_name(resource)}"
            raise Refusal("HAS_CHILDREN", f"{parent} has {', '.join(children)}; {remedy}")


def all_kinds(platform: Platform) -> Kinds:
    """Returns every kind that has a table, by name."""
    kinds: dict[str, Kind[Any]] = {}
    for name in TABLES:
        kinds[name] = KINDS.get(name, Kind)(name, platform, kinds)
    return kinds


def _name(resource: Message) -> str:
    return str(getattr(resource, "name", meta(resource).id))


def _counted(kind: contract.Kind, names: list[str]) -> str:
    """The number of children, and the names of the first."""
    if len(names) > MAX_NAMED_CHILDREN:
        return f"more than {MAX_NAMED_CHILDREN} {kind.plural}: {', '.join(names[:MAX_NAMED_CHILDREN])} ..."
    return f"{len(names)} {kind.plural if len(names) > 1 else kind.command}: {', '.join(names)}"
