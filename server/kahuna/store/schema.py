"""Migrates the schema to this version. Alembic is imported only if there is something to do."""

from pathlib import Path

import structlog
from sqlalchemy import Engine, inspect, text

log = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Upgrades an older or empty database. Raises SystemExit for one of an unknown schema."""
    newest, versions = _versions()
    with engine.connect() as connection:
        current = None
        if inspect(connection).has_table("alembic_version"):
            current = connection.scalar(text("SELECT version_num FROM alembic_version"))
        if current == newest:
            return
        if current and current not in versions:
            remedy = "this Kahuna does not know; use the one that made it"
            if current < newest:
                remedy = (
                    "no release had and this Kahuna can't migrate; restore a backup that a release made, or start the "
                    "last version that has this migration once, and then this one"
                )
            raise SystemExit(f"kahuna: the database is at schema {current}, which {remedy}")
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "head")
        connection.commit()
    log.info("schema.migrated", before=current, now=newest)


def _versions() -> tuple[str, set[str]]:
    """Returns the newest schema version and all versions: migrations are files `NNNN_title.py`, in order."""
    versions = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    return versions[-1], set(versions)
