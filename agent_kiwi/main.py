"""The command `kiwi`."""

from kowa.runtime.settings import AgentSettings


class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's settings."""

    agent = "kiwi"


def main() -> None:
    settings = Settings.from_command_line("Runs the networks of a region.")

    from agent_kiwi.worker import KiwiWorker  # imported here: --help needs no gRPC
    from kowa.runtime.agent import serve

    serve(KiwiWorker(settings), settings)


if __name__ == "__main__":
    main()
