"""Help is complete, quick and teaches."""

import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kowa import contract
from kowactl.kinds import KindGroup
from kowactl.main import cli
from kowactl.options import changeable

METHODS = [
    (kind, verb)
    for kind in contract.load().kinds.values()
    for verb in KindGroup(kind).list_commands(click.Context(cli))
]


def test_what_a_command_of_its_own_shows_is_no_verb() -> None:
    instance = contract.load().kinds["Instance"]
    verbs = instance.service.methods.keys() - set(KindGroup(instance).list_commands(click.Context(cli)))
    assert verbs == {"console", "type-console", "resize-console"}


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_every_method_is_a_command_with_help_and_an_example(kind: contract.Kind, verb: str) -> None:
    shown = CliRunner().invoke(cli, [kind.command, verb, "--help"])
    assert shown.exit_code == 0
    assert f"kowactl {kind.command} {verb}" in shown.output


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_each_option_is_kowactls_own_or_a_field_of_what_is_sent(kind: contract.Kind, verb: str) -> None:
    method = kind.service.methods[verb]
    own = {"name_or_id", "output"}
    sent = {*method.request.fields, *(kind.message.fields if kind.noun in method.request.fields else ())}
    after = {"wait", "timeout"} if method.mutates else set()
    extra = {"list": {"limit", "show_labels"}, "create": {"from_file"}, "update": {"from_file", "clear"}}.get(
        verb, set()
    )
    why = set() if verb in ("list", "get", "watch", "wait") else {"reason"}
    command = KindGroup(kind).get_command(click.Context(cli), verb)
    assert command
    assert {option.name for option in command.params} <= own | sent | after | extra | why


WIRE = ("mask", "a page at a time", "As in List", "with its present state", "Default: id", "`", "...")


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_help_speaks_of_the_command_and_not_of_the_wire(kind: contract.Kind, verb: str) -> None:
    shown = CliRunner().invoke(cli, [kind.command, verb, "--help"]).output
    assert [words for words in WIRE if words in " ".join(shown.split())] == []
    assert not re.search(r"\b[Aa] [aeio]", shown)


def test_a_verb_of_a_kinds_own_says_what_the_contract_says() -> None:
    comment = contract.load().kinds["Kaktus"].service.methods["forget"].comment
    shown = CliRunner().invoke(cli, ["kaktus", "forget", "--help"]).output
    assert " ".join(comment.split()) in " ".join(shown.split())


def test_no_summary_is_cut_off() -> None:
    for words in ([], *([kind.command] for kind in contract.load().kinds.values())):
        shown = CliRunner().invoke(cli, [*words, "--help"]).output.replace("[ARGS]...", "")
        assert "..." not in shown


def test_lists_say_their_order() -> None:
    for kind, order in (("zone", "name"), ("operation", "meta.create_time desc")):
        shown = " ".join(CliRunner().invoke(cli, [kind, "list", "--help"]).output.split())
        assert f"[default: {order}]" in shown


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
