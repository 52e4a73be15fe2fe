"""Imports run one way: proto <- sdk <- server, agents, cli; and inside each, from what is general to what uses it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {"kowa": "sdk", "kahuna": "server", "agent_kaktus": ".", "agent_kiwi": ".", "kowactl": "cli", "gateway": "."}
# What a program may import of ours beside itself; all else of ours it may not.
MAY_IMPORT = {"kowa": set(), "gateway": {"kowa"}} | {
    program: {"kowa"} for program in ("kahuna", "agent_kaktus", "agent_kiwi", "kowactl")
}
# Kahuna's packages, each above those it may import. Modules beside them are not ranked.
LAYERS = [{"domain"}, {"store"}, {"security"}, {"kinds"}, {"api", "fleet"}]
# The environment of alembic, which imports the kinds to compare their tables with the migrations.
COMPARES = "kahuna.store.migrations.env"
# Not in the domain: values come in, values go out.
IMPURE = {"grpc", "time", "random", "secrets", "asyncio", "socket", "threading", "os"}

# Violations that are known: (module, what it imports) -> the check, and since when. What is mended goes from here, too.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def modules(program: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a program by name, without those that the build makes."""
    folder = ROOT / PROGRAMS[program]
    for path in sorted((folder / program).rglob("*.py")):
        if "_pb2" not in path.name:
            name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports when it runs, also late; what only type checkers read is none."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            # `from kahuna import relay` imports a module, `from kahuna.relay import Relays` does not.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def edges(program: str) -> Iterator[tuple[str, str]]:
    """Who imports what: modules, not what is in them."""
    trees = dict(modules(program))
    for name, tree in trees.items():
        for what in imports(tree):
            is_inside = what.startswith(f"{program}.") and what not in trees
            yield name, what.rpartition(".")[0] if is_inside else what


def allowed(found: set[tuple[str, str]], check: str) -> None:
    """Fails with all that is found and not known, and with what is known and no longer found."""
    known = {edge for edge, since in EXCEPTIONS.items() if since.startswith(check)}
    assert found - known == set(), "imports that run the wrong way"
    assert known - found == set(), "exceptions that are needed no more"


def package(name: str) -> str:
    """The package of a program that a module is in; a module beside packages is one of its own."""
    return [*name.split("."), ""][1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_import_the_sdk_and_nothing_else_of_ours(program: str) -> None:
    foreign = (set(PROGRAMS) | {"tests", "deploy", "bench"}) - MAY_IMPORT[program] - {program}
    allowed({(name, what) for name, what in edges(program) if what.split(".")[0] in foreign}, program)


def test_kahunas_packages_import_those_below_them() -> None:
    heights = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    inside = {(name, what) for name, what in edges("kahuna") if what.startswith("kahuna.") and name != COMPARES}
    ranked = {edge for edge in inside if {package(edge[0]), package(edge[1])} <= heights.keys()}
    others = {(name, what) for name, what in ranked if package(name) != package(what)}
    allowed({(name, what) for name, what in others if heights[package(what)] >= heights[package(name)]}, "layers")


def test_the_domain_is_pure() -> None:
    domain = [(name, what) for name, what in edges("kahuna") if package(name) == "domain"]
    allowed({(name, what.split(".")[0]) for name, what in domain if what.split(".")[0] in IMPURE}, "domain")


@pytest.mark.parametrize("program", ["agent_kaktus", "agent_kiwi"])
def test_an_agents_packages_have_no_loops(program: str) -> None:
    graph: dict[str, set[str]] = {}
    for name, what in edges(program):
        if what.startswith(f"{program}.") and package(what) != package(name):
            graph.setdefault(package(name), set()).add(package(what))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as loop:
        pytest.fail(f"packages import each other: {' -> '.join(loop.args[1])}")
