"""Costs of processes: Kahuna's and the agents' memory after an idle minute, Kahuna's start, kowactl's help."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import HEADER, Figure, at_most, quantile
from bench.kahuna import BIN, Server, kahuna, memory
from deploy.programs import running
from kowa.client import Client
from kowa.v2 import agent_pb2, agent_token_pb2, instance_pb2, kiwi_pb2, region_pb2, zone_pb2
from tests.stack.site import make_site
from tests.stack.stack import stack
from tests.waiting import until

IDLE_S = 60
RUNS = 15


def figures() -> list[Figure]:
    """All figures of this bench."""
    with kahuna() as server, kiwi(server) as kiwi_agent, kaktus() as kaktus_agent:
        time.sleep(IDLE_S)
        return [
            at_most("Kahuna, exec to SERVING", server.start_s, "s", 2),
            at_most(f"Kahuna after {IDLE_S} s idle", memory(server.pid), "MB", 150),
            at_most(f"Kiwi agent after {IDLE_S} s idle", memory(kiwi_agent), "MB", 90),
            at_most(f"Kaktus agent after {IDLE_S} s idle, one machine", memory(kaktus_agent), "MB", 90),
            at_most("kowactl --help, whole process", _help_ms(), "ms", 200, _import_click_ms()),
        ]


@contextlib.contextmanager
def kiwi(server: Server) -> Iterator[int]:
    """The pid of a network agent that is connected to this Kahuna."""
    with Client(server.api, key=server.key, insecure=True) as client:
        region = client.of(region_pb2.Region).create(region_pb2.Region(name="bench"))
        agent = client.of(agent_pb2.Agent).create(agent_pb2.Agent(name="kiwi-1"))
        token = client.of(agent_token_pb2.AgentToken).create(
            agent_token_pb2.AgentToken(agent=agent.meta.id, name="bench")
        )
        zone = client.of(zone_pb2.Zone).create(zone_pb2.Zone(region=region.meta.id, name="eu-a"))
        member = kiwi_pb2.Kiwi.Member(agent=agent.meta.id, zone=zone.meta.id)
        client.of(kiwi_pb2.Kiwi).begin_create(kiwi_pb2.Kiwi(region=region.meta.id, name="kiwi-1", members=[member]))
        (server.folder / "token").write_text(token.secret)
        config = server.folder / "kiwi.toml"
        config.write_text(
            f'servers = ["{server.fleet}"]\nca = "{server.ca}"\ntoken = "{server.folder / "token"}"\n'
            f'state = "{server.folder / "kiwi"}"\n'
        )
        agents = client.of(agent_pb2.Agent)

        def connected() -> list[agent_pb2.Agent]:
            return list(agents.list(filter="status.stream = STREAM_ONLINE"))

        with running([BIN / "kiwi", "--config", config], connected, "the agent", server.folder / "kiwi.log") as process:
            yield process.pid


@contextlib.contextmanager
def kaktus() -> Iterator[int]:
    """The pid of a host's agent that runs an instance from a template, with a Kahuna and a libvirt of its own."""
    with stack() as cloud:
        site = make_site(cloud)
        subnet = site.add_subnet(site.add_vnet("lan"), "10.9.0.0/24")
        instance = site.add_instance(
            "web", site.add_volume("web", site.idle), site.add_adapter("web", subnet), site.idle
        )
        until(lambda: cloud.get(instance).status.power == instance_pb2.POWER_RUNNING, what="the instance runs")
        yield cloud.agent.pid


def _help_ms() -> float:
    return _median_ms([str(BIN / "kowactl"), "--help"])


def _import_click_ms() -> float:
    return _median_ms([sys.executable, "-c", "import click"])


def _median_ms(command: list[str]) -> float:
    """A command's median run time, in ms."""
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path("/"))
        taken.append((time.perf_counter() - started) * 1e3)
    return quantile(taken, 0.5)


if __name__ == "__main__":
    print(HEADER, *figures(), sep="\n")
