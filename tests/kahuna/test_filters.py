"""Filters: syntax of other query languages either means the same here, or is refused with a remedy."""

import pytest

from kahuna.api.filters import Condition, conditions
from kahuna.api.query import matcher
from kahuna.domain.errors import Refusal
from kahuna.domain.validation import schema_of
from kowa.v2.instance_pb2 import Instance
from kowa.v2.operation_pb2 import Operation
from kowa.v2.storage_pool_pb2 import StoragePool

INSTANCE = schema_of(Instance())
VALID = [
    # filter, conditions as field, operator, value
    ("", []),
    ("  ", []),
    ('name = "hello"', ["name", "=", "hello"]),
    ("name = hello", ["name", "=", "hello"]),
    ("name=hello", ["name", "=", "hello"]),
    ("name = 'hello'", ["name", "=", "hello"]),
    ("name='hello'", ["name", "=", "hello"]),
    ("name != 'hello'", ["name", "!=", "hello"]),
    ("name==hello", ["name", "=", "hello"]),
    ('name == "hello"', ["name", "=", "hello"]),
    ("name:he", ["name", ":", "he"]),
    ("vcpus>=2", ["vcpus", ">=", "2"]),
    ("memory < 1.5GiB", ["memory", "<", "1.5GiB"]),
    ("name = ''", ["name", "=", ""]),
    ('name = ""', ["name", "=", ""]),
    ('name = "it\'s"', ["name", "=", "it's"]),
    ("name = 'it\\'s'", ["name", "=", "it's"]),
    ("name = 'say \"hi\"'", ["name", "=", 'say "hi"']),
    (r'name = "a \"b\" \\ c\n\u00e9 \*"', ["name", "=", 'a "b" \\ c\né *']),
    (r"name = 'a \\ \* \t'", ["name", "=", "a \\ * \t"]),
    ('name = "AND OR NOT (x) , % “”"', ["name", "=", "AND OR NOT (x) , % “”"]),
    ('name = "a\tb\nc"', ["name", "=", "a\tb\nc"]),
    ("name = мир", ["name", "=", "мир"]),
    ("address = 10.20.0.2", ["address", "=", "10.20.0.2"]),
    ("address = fd00::1", ["address", "=", "fd00::1"]),
    ("mac = 52:54:00:12:34:56", ["mac", "=", "52:54:00:12:34:56"]),
    ("cidr = 10.20.0.0/24", ["cidr", "=", "10.20.0.0/24"]),
    ("time > 2026-01-31T12:00:00+01:00", ["time", ">", "2026-01-31T12:00:00+01:00"]),
    ("number = -5", ["number", "=", "-5"]),
    ("name = and", ["name", "=", "and"]),
    ("name = order", ["name", "=", "order"]),
    ('name = "null"', ["name", "=", "null"]),
    ("labels.env = prod", ["labels.env", "=", "prod"]),
    ("labels.app-tier!=web", ["labels.app-tier", "!=", "web"]),
    ("labels.k8s.io/role = x", ["labels.k8s.io/role", "=", "x"]),
    ('labels."k8s.io/role" = x AND labels:env', ['labels."k8s.io/role"', "=", "x", "labels", ":", "env"]),
    ("metadata.'a b'=c", ["metadata.'a b'", "=", "c"]),
    ('a = 1 AND b != "2"', ["a", "=", "1", "b", "!=", "2"]),
    ("a = 1 and b = 2 And c = 3", ["a", "=", "1", "b", "=", "2", "c", "=", "3"]),
    ("a = 1 && b = 2", ["a", "=", "1", "b", "=", "2"]),
    ("a='1'&&b=2&&c=3", ["a", "=", "1", "b", "=", "2", "c", "=", "3"]),
    ("a = 1\nAND\n b = 2\n", ["a", "=", "1", "b", "=", "2"]),
    ("a=b AND and=c", ["a", "=", "b", "and", "=", "c"]),
]


@pytest.mark.parametrize(("text", "expected"), VALID, ids=[row[0] for row in VALID])
def test_a_filter_is_parsed_into_its_conditions(text: str, expected: list[str]) -> None:
    assert conditions(text) == [Condition(*expected[at : at + 3]) for at in range(0, len(expected), 3)]


NO_NOT, NO_OR, NO_LISTS = "there is no NOT; write !=", "there is no OR; list once", "no parentheses and no lists"
NO_WILDCARDS, NEEDS_QUOTES, NO_QUOTE = "no wildcards; : asks for a part", "needs quotes", "is no quote here"
UNCLOSED, JOINED = "a quote is not closed, or stands within a value", "conditions are joined by AND"
REFUSED = [
    # filter, message
    ("hello", "can't be read at 'hello'; write conditions like name = \"web\" joined by AND"),
    ('"hello"', "can't be read at"),
    ("'hello' = name", "can't be read at"),
    ("5 < vcpus", "can't be read at"),
    ("name", "can't be read at 'name'"),
    ("name hello", "can't be read at 'name hello'"),
    ("name eq hello", "can't be read at"),
    ("[?name=='hello']", NO_LISTS),
    ("$.name = hello", "can't be read at"),
    # Operators of other languages.
    ("name <> hello", "<> is no operator; write !="),
    ("name === hello", "'===' is no operator; use one of = != < <= > >= :"),
    ("name := hello", "':=' is no operator"),
    ("name => hello", "'=>' is no operator"),
    ("name =! hello", "'=!' is no operator"),
    ("name ~ hello", "there are no patterns; : asks for a part"),
    ("name =~ hello", "there are no patterns"),
    ("name !~ 'hel.*'", "there are no patterns"),
    ("name LIKE 'hel%'", "there is no LIKE; : asks for a part"),
    ("name IN ('a', 'b')", "there is no IN; list once"),
    ("name in (a,b)", "there is no IN; list once"),
    ("name notin (a,b)", "there is no NOTIN; write a condition with !="),
    ("name IS NULL", 'there is no IS; what is not set is asked for with = ""'),
    ("name = (a OR b)", NO_LISTS),
    ("name:(a b)", NO_LISTS),
    ("name = [a]", NO_LISTS),
    # Negation, alternatives and groups.
    ("NOT name = hello", NO_NOT),
    ("not name = hello", NO_NOT),
    ("-name:hello", NO_NOT),
    ("!name", NO_NOT),
    ("!(name = hello)", NO_NOT),
    ("(name = hello)", NO_LISTS),
    ("name = hello)", NO_LISTS),
    ("a = 1 AND (b = 2)", NO_LISTS),
    ("a = 1 AND NOT b = 2", NO_NOT),
    ("a = 1 AND -b = 2", NO_NOT),
    ("a = 1 OR b = 2", NO_OR),
    ("a = 1 or b = 2", NO_OR),
    ('a = "1" || b = 2', NO_OR),
    ("a = 1 | b = 2", NO_OR),
    ("a = 1, b = 2", "a comma joins nothing; join conditions with AND"),
    ("a=1,b=2", "a comma joins nothing"),
    ('a = "1", b = 2', "a comma joins nothing"),
    ("a = 1; b = 2", "holds ; needs quotes"),
    ("a = 1 b = 2", JOINED),
    ("a = 1 & b = 2", JOINED),
    ("a = 1 AND", "a condition is missing behind AND"),
    ("a = 1 &&", "a condition is missing behind &&"),
    ("AND a = 1", "can't be read at 'AND a = 1'"),
    ("a = 1 ANDb = 2", JOINED),
    # Values.
    ("name = ", 'name = lacks a value; for an empty one write ""'),
    ("name !=", "name != lacks a value"),
    ("name = && a = 1", "name = lacks a value"),
    ("name = hello world", f"{JOINED}, found 'world'; a value with spaces needs quotes"),
    ('name = "a" "b"', JOINED),
    ('name = "a"b', JOINED),
    ("name = 'it''s'", JOINED),
    ("name = he'llo", UNCLOSED),
    ('name = he"llo"', UNCLOSED),
    ('name = "hello', UNCLOSED),
    ("name = 'hello", UNCLOSED),
    ("name = \"hello'", UNCLOSED),
    ("name = “hello”", "“ is no quote here; write \" or '"),
    ("name = \u2018hello\u2019", NO_QUOTE),
    ("name = «hello»", NO_QUOTE),
    ("name==`hello`", NO_QUOTE),
    ("name = web*", NO_WILDCARDS),
    ("name = *", NO_WILDCARDS),
    ("name:*", NO_WILDCARDS),
    ('name != "web-*"', NO_WILDCARDS),
    ("name = '*'", NO_WILDCARDS),
    ("name = web%", NEEDS_QUOTES),
    ("name = $1", NEEDS_QUOTES),
    ("name = ?", NEEDS_QUOTES),
    ("name = {a}", NO_LISTS),
    ("description = null", 'null is no value; for what is not set write "", for the word itself put it in quotes'),
    ("description != NULL", "NULL is no value"),
    ("description = None", "None is no value"),
    (r'name = "C:\dir"', "a string holds a \\ that escapes nothing; write \\\\"),
    (r"name = 'a\xb'", "escapes nothing"),
    (r'name = "\u12"', "escapes nothing"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_an_ambiguous_filter_is_refused_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        conditions(text)
    (violation,) = refused.value.violations
    assert violation.field == "filter"
    assert message in violation.description


def test_a_negated_condition_finds_all_other_resources() -> None:
    instances = [Instance(name="hello"), Instance(name="web")]
    for text in ("name != 'hello'", 'name != "hello"', "name != hello", "name!='hello'"):
        assert [instance.name for instance in instances if matcher(INSTANCE, text)(instance)] == ["web"], text


LABELLED = [
    Instance(name="p", labels={"env": "prod", "k8s.io/role": "db", "a.b": "1"}),
    Instance(name="q", labels={"env": ""}),
]
BY_LABEL = [
    # filter, the instances it finds of p, q and r, which has no labels
    ("labels.env = prod", "p"),
    ('labels.env != "prod"', "qr"),
    ("labels:env", "pq"),
    ("labels:'k8s.io/role'", "p"),
    ("labels:en", ""),
    ("labels.env:RO", "p"),
    ('labels.env = ""', "qr"),
    ("labels.env > a", "p"),
    ("labels.k8s.io/role = db", "p"),
    ('labels."k8s.io/role" = db AND labels.a.b = 1', "p"),
    ("labels.'a.b' != 1", "qr"),
    ("metadata.motd = x", "r"),
    ('metadata."a \\"b\\"" = y', "r"),
]


@pytest.mark.parametrize(("text", "found"), BY_LABEL, ids=[row[0] for row in BY_LABEL])
def test_values_of_maps_are_filtered_by_their_names(text: str, found: str) -> None:
    instances = [*LABELLED, Instance(name="r", metadata={"motd": "x", 'a "b"': "y"})]
    assert "".join(instance.name for instance in instances if matcher(INSTANCE, text)(instance)) == found
    assert [instance.labels for instance in instances][2] == {}, "filtering by a label does not create it"


def test_a_colon_finds_parts_of_texts_and_lists_and_whole_other_values() -> None:
    small, large = Instance(name="web", vcpus=2, memory=1 << 30), Instance(name="Web-2", vcpus=12, memory=21 << 30)
    for text, found in (
        ("name:web", [small, large]),
        ("vcpus:2", [small]),
        ("memory:1G", [small]),
        ("power:unspecified", [small, large]),
    ):
        assert [instance for instance in (small, large) if matcher(INSTANCE, text)(instance)] == found, text
    assert not matcher(schema_of(Operation()), "progress:1")(Operation(progress=10))


def test_fractions_are_compared_as_numbers() -> None:
    pool = StoragePool(overcommit=1.5)
    for text, found in (("overcommit = 1.5", True), ("overcommit > 1.25", True), ("overcommit < 1", False)):
        assert matcher(schema_of(pool), text)(pool) is found, text
