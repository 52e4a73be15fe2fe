"""What is kept for a time only."""

from sqlalchemy import delete
from sqlmodel import col, select

from kahuna.domain.lifecycle import OPEN
from kahuna.store.audit import Audit
from kahuna.store.log import Head, Log
from kahuna.store.operation import Operation
from kahuna.store.request import Request
from kahuna.store.transaction import Transaction
from kahuna.store.view import TAIL

DAY = 24 * 3600 * 1_000_000  # microseconds
# How long a repeated request is recognised, an ended operation can be read, and the audit trail is kept.
REQUESTS = DAY
OPERATIONS = 30 * DAY
AUDIT = 400 * DAY
# How many operations go in one transaction, so that none holds the writer for long.
CHUNK = 500


def prune(tx: Transaction) -> bool:
    """Takes out what has had its time. Says whether there may be more."""
    tx.session.execute(delete(Request).where(col(Request.time) < tx.now - REQUESTS))
    tx.session.execute(delete(Audit).where(col(Audit.time) < tx.now - AUDIT))
    head = tx.session.exec(select(Head.revision)).one()
    tx.session.execute(delete(Log).where(col(Log.revision) <= head - TAIL))
    ended = (
        select(Operation.id)
        .where(col(Operation.phase).not_in(OPEN), col(Operation.update_time) < tx.now - OPERATIONS)
        .limit(CHUNK)
    )
    ids = tx.session.exec(ended).all()
    for id_ in ids:
        tx.remove("Operation", id_)
    return len(ids) == CHUNK
