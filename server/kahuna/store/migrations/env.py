"""Alembic's entry: runs on the connection that `schema.migrate` hands over."""

from alembic import context
from sqlmodel import SQLModel

import kahuna.kinds
import kahuna.store.audit
import kahuna.store.credential
import kahuna.store.gone
import kahuna.store.log
import kahuna.store.reference
import kahuna.store.request

assert kahuna.kinds
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
