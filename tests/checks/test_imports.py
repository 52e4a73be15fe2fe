"""Imports go one way: proto <- sdk <- server, agents, cli; and in each, from specific packages to general ones."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Top-level package -> the folder that contains it.
PACKAGES = {"kowa": "sdk", "kahuna": "server", "agent_kaktus": ".", "agent_kiwi": ".", "kowactl": "cli", "gateway": "."}
# Those of them that each may import in addition to itself.
MAY_IMPORT = {"kowa": set(), "gateway": {"kowa"}} | {
    package: {"kowa"} for package in ("kahuna", "agent_kaktus", "agent_kiwi", "kowactl")
}
# Kahuna's subpackages, each after those it may import. Modules outside them are not ranked.
LAYERS = [{"domain"}, {"store"}, {"security"}, {"kinds"}, {"api", "fleet"}]
# The environment of alembic, which imports the kinds to compare their tables with the migrations.
MIGRATIONS_ENV = "kahuna.store.migrations.env"
# Modules that the pure domain may not import.
IMPURE = {"grpc", "time", "random", "secrets", "asyncio", "socket", "threading", "os"}

# Known violations: (module, imported module) -> "CHECK, since DATE". Remove an entry when it is fixed.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a top-level package by name, without generated ones."""
    folder = ROOT / PACKAGES[package]
    for path in sorted((folder / package).rglob("*.py")):
        if "_pb2" not in path.name:
            name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports, also inside functions; imports under TYPE_CHECKING are skipped."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            # `from agent_kaktus import names` imports a module, `from kahuna.serve import Kahuna` does not.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def edges(package: str) -> Iterator[tuple[str, str]]:
    """Yields (module, imported module) for each import of a top-level package."""
    trees = dict(modules(package))
    for name, tree in trees.items():
        for imported in imports(tree):
            is_name = imported.startswith(f"{package}.") and imported not in trees  # of something in a module
            yield name, imported.rpartition(".")[0] if is_name else imported


def check_violations(found: set[tuple[str, str]], check: str) -> None:
    """Fails on violations that are not in EXCEPTIONS, and on exceptions that are no longer violated."""
    known = {edge for edge, since in EXCEPTIONS.items() if since.startswith(check)}
    assert found - known == set(), "imports in the wrong direction"
    assert known - found == set(), "exceptions that are no longer needed"


def subpackage(name: str) -> str:
    """The subpackage of a module; a module outside subpackages counts as one."""
    return [*name.split("."), ""][1]


@pytest.mark.parametrize("package", PACKAGES)
def test_programs_import_the_sdk_and_nothing_else_of_ours(package: str) -> None:
    foreign = (set(PACKAGES) | {"tests", "deploy", "bench"}) - MAY_IMPORT[package] - {package}
    check_violations(
        {(name, imported) for name, imported in edges(package) if imported.split(".")[0] in foreign}, package
    )


def test_kahunas_subpackages_import_those_below_them() -> None:
    heights = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    inside = {
        (name, imported)
        for name, imported in edges("kahuna")
        if imported.startswith("kahuna.") and name != MIGRATIONS_ENV
    }
    ranked = {edge for edge in inside if {subpackage(edge[0]), subpackage(edge[1])} <= heights.keys()}
    others = {(name, imported) for name, imported in ranked if subpackage(name) != subpackage(imported)}
    check_violations(
        {(name, imported) for name, imported in others if heights[subpackage(imported)] >= heights[subpackage(name)]},
        "layers",
    )


def test_the_domain_is_pure() -> None:
    domain = [(name, imported) for name, imported in edges("kahuna") if subpackage(name) == "domain"]
    check_violations(
        {(name, imported.split(".")[0]) for name, imported in domain if imported.split(".")[0] in IMPURE}, "domain"
    )


@pytest.mark.parametrize("package", ["agent_kaktus", "agent_kiwi"])
def test_an_agents_subpackages_have_no_loops(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for name, imported in edges(package):
        if imported.startswith(f"{package}.") and subpackage(imported) != subpackage(name):
            graph.setdefault(subpackage(name), set()).add(subpackage(imported))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as loop:
        pytest.fail(f"subpackages import each other: {' -> '.join(loop.args[1])}")
