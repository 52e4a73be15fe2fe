"""What a table repeats of the contract is what the contract says."""

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Mapper

from kahuna.store.resource import CONTRACT, TABLES, Resource, own_columns


def mapper(kind: str) -> "Mapper[Resource]":
    found: Mapper[Resource] = inspect(TABLES[kind])
    return found


def test_every_kind_of_the_contract_has_a_home_and_a_table() -> None:
    assert set(TABLES) == set(CONTRACT.kinds)


@pytest.mark.parametrize("kind", sorted(CONTRACT.kinds))
def test_each_column_is_a_field_of_the_contract(kind: str) -> None:
    """Of an optional field it may be empty; of a reference it is a foreign key to the kind that is named."""
    fields = CONTRACT.kinds[kind].message.fields
    for name, field in own_columns(kind).items():
        if kind == "Operation":
            continue  # its target outlives nothing: it is no reference
        column, described = mapper(kind).columns[name], fields[field]
        keys = [str(key.column) for key in column.foreign_keys]
        assert keys == ([f"{described.ref.lower()}.id"] if described.ref else []), name
        if described.ref:
            assert column.nullable == (not described.required), name


@pytest.mark.parametrize("kind", sorted(CONTRACT.kinds))
def test_what_the_contract_calls_unique_the_database_keeps_so(kind: str) -> None:
    columns = {field: column for column, field in own_columns(kind).items()}
    kept = {
        (tuple(sorted(index.columns.keys())), str(index.dialect_options["sqlite"]["where"]))
        for index in mapper(kind).local_table.indexes  # type: ignore[attr-defined]
        if index.unique
    }
    for unique in CONTRACT.kinds[kind].uniques:
        where = "delete_time IS NULL" + (f" AND {columns[unique.unless]} IS NULL" if unique.unless else "")
        assert (tuple(sorted(columns[field] for field in unique.fields)), where) in kept, unique


@pytest.mark.parametrize("kind", sorted(CONTRACT.kinds))
def test_a_violated_index_has_words(kind: str) -> None:
    """A name says for itself that it is taken; of all else the kind says what was taken, and by what."""
    for index in mapper(kind).local_table.indexes:  # type: ignore[attr-defined]
        columns = tuple(index.columns.keys())
        if index.unique and "name" not in columns and columns != ("prefix",):
            assert columns in TABLES[kind].constraint_messages
