"""`kowactl KIND`: the groups of commands. The modules that build the commands are imported when one is used."""

import click

from kowa import contract
from kowa.contract import Kind


class KindGroups(click.Group):
    """One command group for each kind of the contract."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*sorted(kind.command for kind in contract.load().kinds.values()), *super().list_commands(context)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Finds a kind's group by its name, in the singular or plural."""
        for kind in contract.load().kinds.values():
            if name in (kind.command, kind.plural):
                return KindGroup(kind)
        return super().get_command(context, name)


class KindGroup(click.Group):
    """`kowactl KIND`: a command for each method."""

    def __init__(self, kind: Kind) -> None:
        comment = kind.message.comment
        super().__init__(kind.command, help=comment, short_help=first_sentence(comment))
        self.kind = kind

    def list_commands(self, context: click.Context) -> list[str]:
        methods = self.kind.service.methods
        # Streams other than watch (console) have hand-written commands, which use the methods named after them.
        streams = {verb for verb, method in methods.items() if method.streams and verb != "watch"}
        return [verb for verb in methods if not {verb, verb.partition("-")[2]} & streams]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        from kowactl.kinds import command

        return command(self.kind, self.kind.service.methods[name])


def first_sentence(text: str) -> str:
    """The first sentence, without its period."""
    return " ".join(text.partition(". ")[0].rstrip(".").split())
