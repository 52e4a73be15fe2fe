"""Alembic's entry point: runs on the connection that `schema.migrate` passes."""

from alembic import context
from sqlmodel import SQLModel

import kahuna.kinds

assert kahuna.kinds
context.configure(
    connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
