"""`kowactl`: the platform's command line. All commands except the console are built from the contract."""

import io
import os
import signal
import sys
from typing import NoReturn

import click

from kowa import errors
from kowactl import terminal
from kowactl.console import console
from kowactl.groups import KindGroups
from kowactl.session import Session

EXIT_CODES = {
    errors.NotFound: 3,
    errors.Invalid: 4,
    errors.Conflict: 5,
    errors.Exhausted: 6,
    errors.Denied: 7,
    errors.Unavailable: 8,
    errors.OperationFailed: 9,
    errors.OperationPending: 10,
}
CHECK_ENDPOINT = "check KOWABUNGA_ENDPOINT (or --endpoint), and that Kahuna runs"
# gRPC handshake error texts and their remedies.
HANDSHAKE_REMEDIES = {
    "CERTIFICATE_VERIFY_FAILED": "set KOWABUNGA_CA (or --ca) to the authority that signed Kahuna's certificate",
    "Hostname Verification Check failed": "name Kahuna as its certificate does, in KOWABUNGA_ENDPOINT or --endpoint",
    "WRONG_VERSION_NUMBER": "Kahuna uses no TLS there: give --insecure, or the endpoint that has TLS",
    "Failed to create security handshaker": "KOWABUNGA_CA (or --ca) holds no certificate",
    "Socket closed": f"if it uses TLS there, leave --insecure out; else {CHECK_ENDPOINT}",
    "handshake failed": "set KOWABUNGA_CA (or --ca) to the CA to trust, or give --insecure where there is no TLS",
}
EXIT_INTERRUPTED = 130
COMPLETE_VARIABLE = "_KOWACTL_COMPLETE"

EPILOG = """\b
Environment:
  KOWABUNGA_ENDPOINT  where Kahuna is: kahuna.example:443
  KOWABUNGA_API_KEY   the key to sign in with
  KOWABUNGA_CA        a PEM file of authorities to trust

\b
Exit codes:
  0 done              5 conflicts with the current state    9 committed, then failed,
  1 any other error   6 quota or hosts exhausted              cancelled or superseded
  2 wrong usage       7 key unknown or not allowed         10 not ended within --timeout
  3 not found         8 Kahuna unreachable, or too busy
  4 invalid request
  A closed pipe (| head) is not an error; on a signal kowactl ends with the usual status.

\b
Examples:
  kowactl instance create --help
  kowactl console my-instance
  kowactl instance list --filter 'power = POWER_RUNNING' -o json
  eval "$(_KOWACTL_COMPLETE=bash_source kowactl)"    complete with the Tab key
"""


@click.group(
    cls=KindGroups, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option("--endpoint", metavar="HOST:PORT", help="Where Kahuna is, instead of KOWABUNGA_ENDPOINT.")
@click.option("--ca", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Authorities to trust (PEM).")
@click.option("--insecure", is_flag=True, help="Use no TLS; the key is sent unencrypted.")
@click.version_option(package_name="kowa", message="%(version)s")
@click.pass_context
def cli(context: click.Context, endpoint: str | None, ca: str | None, insecure: bool) -> None:
    """Drive a Kowabunga cloud: kowactl RESOURCE VERB."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log is off; kowactl prints errors itself
    context.obj = Session(endpoint, ca, insecure)


cli.add_command(console)


def main() -> NoReturn:
    """Turns every error into one line and an exit code."""
    terminal.handle_signals()
    terminal.open_closed_standard_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        terminal.print_message("")  # a terminal shows ^C
        sys.exit(EXIT_INTERRUPTED)
    except terminal.Terminated as error:
        # End by the signal itself, so that the parent process sees the usual status.
        (number,) = error.args
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        sys.exit(128 + number)


def _run() -> int:
    """Like click's `main`, except for exception handling; returns the exit code."""
    try:
        if instruction := os.environ.get(COMPLETE_VARIABLE):
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "kowactl", COMPLETE_VARIABLE, instruction)
        with cli.make_context("kowactl", sys.argv[1:]) as context:
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.print_message(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        terminal.print_message(f"kowactl: {terminal.escaped(usage_line(error))}")
        return error.exit_code
    except errors.KowaError as error:
        terminal.print_message(f"kowactl: {terminal.escaped(error_line(error))}")
        # HOST_OFFLINE does not mean Kahuna is unreachable: retrying does not help, so exit as a conflict.
        return EXIT_CODES[errors.Conflict] if error.reason == "HOST_OFFLINE" else EXIT_CODES.get(type(error), 1)
    except UnicodeEncodeError as error:  # only arguments can hold undecodable bytes
        terminal.print_message(f"kowactl: {error.object!r} is not UTF-8")
        return click.UsageError.exit_code
    except OSError as error:
        # Python would flush stdout again at exit and fail there unhandled.
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.STDOUT)
        if isinstance(error, BrokenPipeError):  # the reader closed the pipe (head): no error
            return 0
        terminal.print_message(f"kowactl: can't write: {error.strerror}")
        return 1


def usage_line(error: click.ClickException) -> str:
    """A usage error and where to find help, in one line."""
    line = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx and "see: " not in line:
        line += f"; see: {error.ctx.command_path} --help"
    return line


def error_line(error: errors.KowaError) -> str:
    """An error with its violations and remedy, in one line."""
    message = " ".join(error.message.split()) or error.code
    unnamed = [each for each in error.violations if each.field not in message or each.description not in message]
    violations = "; ".join(f"{each.field}: {each.description}" for each in unnamed)
    line = "; ".join(part.rstrip(".") for part in (message, violations, _remedy(error)) if part)
    return f"{line} ({error.reason})" if error.reason else line


def _remedy(error: errors.KowaError) -> str:
    from kowa.v2.operation_pb2 import PHASE_SUPERSEDED  # late: --help needs no stubs

    match error:
        case errors.Unavailable(reason=""):
            remedies = (remedy for text, remedy in HANDSHAKE_REMEDIES.items() if text in error.message)
            return next(remedies, CHECK_ENDPOINT)
        case errors.Denied(code="UNAUTHENTICATED"):
            return "check KOWABUNGA_API_KEY"
        case errors.OperationFailed(operation=operation) if operation.phase == PHASE_SUPERSEDED:
            return f"the newer change goes on: kowactl operation list --filter 'target = \"{operation.target}\"'"
        case errors.OperationPending(operation=operation):
            return f"wait on with: kowactl operation wait {operation.meta.id}"
        case _:
            return ""


if __name__ == "__main__":
    main()
