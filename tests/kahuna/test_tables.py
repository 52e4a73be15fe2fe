"""Columns and indexes of the tables match the contract."""

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Mapper

from kahuna.store.resource import CONTRACT, TABLES, Resource, own_columns


def mapper(kind: str) -> "Mapper[Resource]":
    found: Mapper[Resource] = inspect(TABLES[kind])
    return found


def test_every_kind_of_the_contract_has_a_table() -> None:
    assert set(TABLES) == set(CONTRACT.kinds)


@pytest.mark.parametrize("kind", sorted(CONTRACT.kinds))
def test_each_column_is_a_field_of_the_contract_with_its_foreign_key(kind: str) -> None:
    """A reference's column is a foreign key to its kind, nullable if the field is optional."""
    fields = CONTRACT.kinds[kind].message.fields
    for name, field in own_columns(kind).items():
        if kind == "Operation":
            continue  # its target is not a reference, since operations outlive their targets
        column, described = mapper(kind).columns[name], fields[field]
        keys = [str(key.column) for key in column.foreign_keys]
        assert keys == ([f"{described.ref.lower()}.id"] if described.ref else []), name
        if described.ref:
            assert column.nullable == (not described.required), name


@pytest.mark.parametrize("kind", sorted(CONTRACT.kinds))
def test_each_unique_option_of_the_contract_has_a_unique_index(kind: str) -> None:
    columns = {field: column for column, field in own_columns(kind).items()}
    indexes = {
        (tuple(sorted(index.columns.keys())), str(index.dialect_options["sqlite"]["where"]))
        for index in mapper(kind).local_table.indexes  # type: ignore[attr-defined]
        if index.unique
    }
    for unique in CONTRACT.kinds[kind].uniques:
        where = "delete_time IS NULL" + (f" AND {columns[unique.unless]} IS NULL" if unique.unless else "")
        assert (tuple(sorted(columns[field] for field in unique.fields)), where) in indexes, unique


@pytest.mark.parametrize("kind", sorted(CONTRACT.kinds))
def test_each_unique_index_has_an_error_message(kind: str) -> None:
    """Names have a common message; for other columns the kind has one."""
    for index in mapper(kind).local_table.indexes:  # type: ignore[attr-defined]
        columns = tuple(index.columns.keys())
        if index.unique and "name" not in columns and columns != ("prefix",):
            assert columns in TABLES[kind].constraint_messages
