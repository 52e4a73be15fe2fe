"""Help: complete, with examples, and quick."""

import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kowa import contract
from kowactl.groups import KindGroup
from kowactl.main import cli
from kowactl.options import changeable

METHODS = [
    (kind, verb)
    for kind in contract.load().kinds.values()
    for verb in KindGroup(kind).list_commands(click.Context(cli))
]


def test_the_methods_behind_the_console_command_are_not_verbs() -> None:
    instance = contract.load().kinds["Instance"]
    verbs = instance.service.methods.keys() - set(KindGroup(instance).list_commands(click.Context(cli)))
    assert verbs == {"console", "type-console", "resize-console"}


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_every_method_is_a_command_with_help_and_an_example(kind: contract.Kind, verb: str) -> None:
    help_text = CliRunner().invoke(cli, [kind.command, verb, "--help"])
    assert help_text.exit_code == 0
    assert f"kowactl {kind.command} {verb}" in help_text.output


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_each_option_is_kowactls_own_or_a_field_of_the_request(kind: contract.Kind, verb: str) -> None:
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


WIRE_TERMS = ("mask", "a page at a time", "As in List", "with its present state", "Default: id", "`", "...")


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda part: getattr(part, "command", part))
def test_help_describes_the_command_without_wire_terms(kind: contract.Kind, verb: str) -> None:
    help_text = CliRunner().invoke(cli, [kind.command, verb, "--help"]).output
    assert [term for term in WIRE_TERMS if term in " ".join(help_text.split())] == []
    assert not re.search(r"\b[Aa] [aeio]", help_text)


def test_help_of_a_custom_verb_has_the_contracts_comment() -> None:
    comment = contract.load().kinds["Kaktus"].service.methods["forget"].comment
    help_text = CliRunner().invoke(cli, ["kaktus", "forget", "--help"]).output
    assert " ".join(comment.split()) in " ".join(help_text.split())


def test_no_summary_is_truncated() -> None:
    for arguments in ([], *([kind.command] for kind in contract.load().kinds.values())):
        help_text = CliRunner().invoke(cli, [*arguments, "--help"]).output.replace("[ARGS]...", "")
        assert "..." not in help_text


def test_help_of_list_names_the_default_order() -> None:
    for kind, order in (("zone", "name"), ("operation", "meta.create_time desc")):
        help_text = " ".join(CliRunner().invoke(cli, [kind, "list", "--help"]).output.split())
        assert f"[default: {order}]" in help_text


def test_help_of_update_says_that_lists_and_maps_are_replaced() -> None:
    for kind in contract.load().kinds.values():
        if "update" not in kind.service.methods:
            continue
        help_text = " ".join(CliRunner().invoke(cli, [kind.command, "update", "--help"]).output.split())
        many = [field for field in changeable(kind) if field.repeated or field.is_map]
        assert help_text.count("Can be repeated. Those given replace all that were there.") == len(many)


def test_examples_are_valid_commands() -> None:
    """Each example parses: its options are known and its values valid."""
    for kind, verb in METHODS:
        command = KindGroup(kind).get_command(click.Context(cli), verb)
        assert command
        assert command.epilog
        arguments = shlex.split(command.epilog.partition("Example:")[2].replace("\\\n", " "))
        assert arguments[:3] == ["kowactl", kind.command, verb]
        command.make_context(verb, arguments[3:])


def test_help_imports_no_grpc() -> None:
    code = "import sys; sys.argv = ['kowactl', '--help']; from kowactl.main import cli; cli(standalone_mode=False)"
    check = f"{code}; sys.exit('grpc' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, capture_output=True).returncode == 0


def test_completion_offers_kinds_verbs_and_values() -> None:
    def complete(arguments: str) -> list[str]:
        variables = {
            "_KOWACTL_COMPLETE": "bash_complete",
            "COMP_WORDS": arguments,
            "COMP_CWORD": str(arguments.count(" ")),
        }
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
