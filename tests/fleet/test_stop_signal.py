"""Kahuna and an agent as programs: a signal ends them in time, and their logs have no traceback."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.kahuna import await_serving
from deploy.programs import end, free_port, start
from kowa.client import Client
from kowa.v2 import agent_pb2, agent_token_pb2, kiwi_pb2, region_pb2, vnet_pb2, zone_pb2
from tests.waiting import until

BIN = Path(sys.executable).parent
STOP_TIMEOUT_S = 10.0  # also on a busy machine; a watch is waited for 2 s


def events(log: Path) -> list[str]:
    """The events of a log, each of whose lines is one."""
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


def stop(process: "subprocess.Popen[bytes]") -> float:
    """Ends a program by SIGTERM; returns the seconds it took."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    return time.monotonic() - started


def test_programs_with_open_sessions_stop_in_silence_and_in_time(tmp_path: Path) -> None:
    api, fleet = f"127.0.0.1:{free_port()}", free_port()
    config, log, agent_log = tmp_path / "kahuna.toml", tmp_path / "kahuna.log", tmp_path / "kiwi.log"
    config.write_text(
        f'state = "{tmp_path}"\napi = "{api}"\nfleet = "127.0.0.1:{fleet}"\nmetrics = ""\nnames = ["localhost"]\n'
    )
    program = [str(BIN / "kahuna"), "--config", str(config)]
    subprocess.run([*program, "admin-key", "--out", str(tmp_path / "admin.key")], check=True, stdout=subprocess.DEVNULL)
    kahuna = start([*program, "serve"], log)
    agent = None
    try:
        await_serving(api)
        with Client(api, key=(tmp_path / "admin.key").read_text().strip(), insecure=True) as client:
            region = client.of(region_pb2.Region).create(region_pb2.Region(name="eu"))
            zone = client.of(zone_pb2.Zone).create(zone_pb2.Zone(region=region.meta.id, name="eu-a"))
            record = client.of(agent_pb2.Agent).create(agent_pb2.Agent(name="kiwi-1"))
            token = client.of(agent_token_pb2.AgentToken).create(
                agent_token_pb2.AgentToken(agent=record.meta.id, name="first")
            )
            member = kiwi_pb2.Kiwi.Member(agent=record.meta.id, zone=zone.meta.id)
            client.of(kiwi_pb2.Kiwi).begin_create(kiwi_pb2.Kiwi(region=region.meta.id, name="kiwi-1", members=[member]))
            (tmp_path / "token").write_text(token.secret)
            (tmp_path / "kiwi.toml").write_text(
                f'servers = ["localhost:{fleet}"]\nca = "{tmp_path / "ca.pem"}"\n'
                f'token = "{tmp_path / "token"}"\nstate = "{tmp_path / "kiwi"}"\n'
            )
            agent = start([BIN / "kiwi", "--config", tmp_path / "kiwi.toml"], agent_log)
            agents = client.of(agent_pb2.Agent)
            until(lambda: agents.get(record.meta.id).status.held_revision, what="the agent's ack")
            seen = threading.Event()
            watching = threading.Thread(target=_watch, args=(client, seen), daemon=True)
            watching.start()
            assert seen.wait(20)
            assert stop(kahuna) < STOP_TIMEOUT_S
            until(lambda: "session.ended" in events(agent_log), what="the goodbye in the agent's log")
            assert stop(agent) < STOP_TIMEOUT_S
        watching.join(20)
        assert events(log)[-1] == "kahuna.stopped"
        assert "FAREWELL_SHUTTING_DOWN" in agent_log.read_text()
        assert "agent.stopped" in events(agent_log)
    finally:
        for process in (kahuna, agent):
            if process is not None and process.poll() is None:
                end(process)


def _watch(client: Client, seen: threading.Event) -> None:
    """Watches until Kahuna has gone for good."""
    try:
        for _ in client.of(vnet_pb2.Vnet).watch():
            seen.set()
    except Exception:  # noqa: BLE001 - how the watch ends is another test's
        return
