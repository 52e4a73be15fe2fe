"""The command `kaktus`."""

from agent_kaktus.settings import Settings


def main() -> None:
    settings = Settings.from_command_line("Runs the instances of a host.")

    from agent_kaktus.worker import KaktusWorker  # imported here: --help needs no libvirt
    from kowa.runtime.agent import serve

    serve(KaktusWorker(settings), settings)


if __name__ == "__main__":
    main()
