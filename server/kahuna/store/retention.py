"""What is kept for a time only."""

from sqlalchemy import delete
from sqlmodel import col, select

from kahuna.store.audit import Audit
from kahuna.store.log import Head, Log
from kahuna.store.request import Request
from kahuna.store.transaction import Transaction
from kahuna.store.view import MAX_TAIL_CHANGES

DAY_US = 24 * 3600 * 1_000_000  # microseconds
REQUEST_RETENTION_US = DAY_US  # while a repeated request is recognised
AUDIT_RETENTION_US = 400 * DAY_US


def prune(tx: Transaction) -> None:
    """Removes requests, audit rows and log entries that have had their time."""
    tx.session.execute(delete(Request).where(col(Request.time) < tx.now - REQUEST_RETENTION_US))
    tx.session.execute(delete(Audit).where(col(Audit.time) < tx.now - AUDIT_RETENTION_US))
    head = tx.session.exec(select(Head.revision)).one()
    tx.session.execute(delete(Log).where(col(Log.revision) <= head - MAX_TAIL_CHANGES))
