"""What is kept for a time only."""

from sqlalchemy import delete
from sqlmodel import col, select

from kahuna.store.audit import Audit
from kahuna.store.log import Head, Log
from kahuna.store.request import Request
from kahuna.store.transaction import Transaction
from kahuna.store.view import MAX_TAIL_CHANGES

DAY = 24 * 3600 * 1_000_000  # microseconds
REQUESTS_KEPT_FOR = DAY  # while a repeated request is recognised
AUDIT_KEPT_FOR = 400 * DAY


def prune(tx: Transaction) -> None:
    """Removes requests, audit rows and log entries that have had their time."""
    tx.session.execute(delete(Request).where(col(Request.time) < tx.now - REQUESTS_KEPT_FOR))
    tx.session.execute(delete(Audit).where(col(Audit.time) < tx.now - AUDIT_KEPT_FOR))
    head = tx.session.exec(select(Head.revision)).one()
    tx.session.execute(delete(Log).where(col(Log.revision) <= head - MAX_TAIL_CHANGES))
