"""Help is complete, quick and teaches."""

import os
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kowa import contract
from kowactl.fields import changeable
from kowactl.kinds import KindGroup
from kowactl.main import cli

METHODS = [
    (kind, verb)
    for kind in contract.load().kinds.values()
    for verb, method in kind.service.methods.items()
    if not method.converses
]


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_every_method_is_a_command_with_help_and_an_example(kind: contract.Kind, verb: str) -> None:
    shown = CliRunner().invoke(cli, [kind.command, verb, "--help"])
    assert shown.exit_code == 0
    assert f"kowactl {kind.command} {verb}" in shown.output
    flat = " ".join(shown.output.split())
    assert " ".join(kind.service.methods[verb].comment.split()) in flat


def test_an_update_says_that_lists_and_maps_are_replaced() -> None:
    for kind in contract.load().kinds.values():
        if "update" not in kind.service.methods:
            continue
        shown = " ".join(CliRunner().invoke(cli, [kind.command, "update", "--help"]).output.split())
        many = [field for field in changeable(kind) if field.repeated or field.is_map]
        assert shown.count("Can be repeated. Those given replace all that were there.") == len(many)


def test_examples_are_commands() -> None:
    """Each can be typed: all of its options are known and its values fit."""
    for kind, verb in METHODS:
        command = KindGroup(kind).get_command(click.Context(cli), verb)
        assert command
        assert command.epilog
        words = shlex.split(command.epilog.partition("Example:")[2].replace("\\\n", " "))
        assert words[:3] == ["kowactl", kind.command, verb]
        command.make_context(verb, words[3:])


def test_help_imports_no_grpc() -> None:
    code = "import sys; sys.argv = ['kowactl', '--help']; from kowactl.main import cli; cli(standalone_mode=False)"
    check = f"{code}; sys.exit('grpc' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, capture_output=True).returncode == 0


def test_completion_knows_kinds_verbs_and_values() -> None:
    def complete(words: str) -> list[str]:
        variables = {"_KOWACTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", "from kowactl.main import main; main()"],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("kowactl sto") == ["storage-pool"]
    assert complete("kowactl instance s") == ["start", "stop", "suspend"]
    assert complete("kowactl instance create --power ") == ["running", "stopped", "suspended"]
