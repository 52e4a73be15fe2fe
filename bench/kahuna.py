"""Kahuna as a process, for the benches."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.programs import end, free_port, start

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Server:
    """A running Kahuna."""

    pid: int
    api: str
    fleet: str
    key: str
    folder: Path
    start_s: float  # from exec to SERVING

    @property
    def ca(self) -> Path:
        """The CA certificate that agents trust."""
        return self.folder / "ca.pem"


@contextlib.contextmanager
def kahuna() -> Iterator[Server]:
    """Runs Kahuna on an empty SQLite database."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        api, fleet = f"127.0.0.1:{free_port()}", f"localhost:{free_port()}"
        config = folder / "kahuna.toml"
        config.write_text(
            f'state = "{folder}"\napi = "{api}"\nfleet = "127.0.0.1:{fleet.rpartition(":")[2]}"\nmetrics = ""\n'
            'names = ["localhost"]\n'
        )
        command = [str(BIN / "kahuna"), "--config", str(config)]
        subprocess.run(
            [*command, "admin-key", "--out", str(folder / "admin.key")], check=True, stdout=subprocess.DEVNULL
        )
        # The first start also creates the certificates; every later one counts.
        with _serving(command, api, folder):
            pass
        with _serving(command, api, folder) as (process, start_s):
            yield Server(process.pid, api, fleet, (folder / "admin.key").read_text().strip(), folder, start_s)


@contextlib.contextmanager
def _serving(command: list[str], api: str, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
    """Yields the process and how many seconds it took until it served."""
    started = time.perf_counter()
    process = start([*command, "serve"], folder / "log")
    try:
        await_serving(api)
        yield process, time.perf_counter() - started
    finally:
        end(process)


def await_serving(api: str) -> None:
    """Returns when the health check reports SERVING."""
    end = time.monotonic() + START_TIMEOUT_S
    options = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 20))
    with grpc.insecure_channel(api, options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < end:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                time.sleep(0.01)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise TimeoutError(f"Kahuna does not serve within {START_TIMEOUT_S} s")


def memory(pid: int) -> float:
    """The resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
