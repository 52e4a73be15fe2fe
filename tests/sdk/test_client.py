"""What a Python program may rely on."""

import asyncio
from pathlib import Path

import pytest

from kowa import errors
from kowa.aio import AsyncClient
from kowa.client import Client
from kowa.v2.agent_pb2 import Agent
from kowa.v2.agent_token_pb2 import AgentToken
from kowa.v2.instance_pb2 import POWER_RUNNING, POWER_STOPPED, Instance
from kowa.v2.meta_pb2 import STATE_READY, Meta
from kowa.v2.operation_pb2 import PHASE_DONE
from kowa.v2.region_pb2 import Region
from tests.sdk.kahunas import Kahuna


def test_where_kahuna_is_comes_from_the_environment(
    kahuna: Kahuna, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="KOWABUNGA_ENDPOINT"):
        Client()
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", kahuna.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", kahuna.key)
    with Client(insecure=True) as client:
        assert list(client.regions.list()) == []
    monkeypatch.setenv("KOWABUNGA_CA", str(tmp_path / "none.pem"))
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        Client()


def test_a_resource_lives(client: Client) -> None:
    made = client.regions.create(Region(name="eu"))
    assert client.regions.get(made.meta.id).meta.etag == made.meta.etag
    changed = client.regions.update(Region(meta=made.meta, name="ignored", description="Europe"), mask=["description"])
    assert (changed.name, changed.description) == ("eu", "Europe")
    client.regions.delete(made.meta.id)
    with pytest.raises(errors.NotFound, match=made.meta.id):
        client.regions.get(made.meta.id)


def test_a_change_may_only_be_begun(client: Client) -> None:
    begun = client.regions.begin_create(Region(name="eu"))
    operation = client.operations.wait(begun.operation_id)
    assert (operation.method, operation.target, operation.phase) == ("CreateRegion", begun.resource.meta.id, PHASE_DONE)


def test_a_machine_runs_when_create_returns(client: Client, shop: Instance) -> None:
    made = client.of(Instance).create(shop)
    assert (made.meta.state, made.status.power) == (STATE_READY, POWER_RUNNING)
    assert client.instances.stop(made.meta.id).status.power == POWER_STOPPED
    begun = client.instances.begin_start(made.meta.id)
    assert client.operations.wait(begun.operation_id, 10).phase == PHASE_DONE


def test_a_secret_shown_once_is_in_the_answer(client: Client) -> None:
    agent = client.agents.create(Agent(name="host-1"))
    made = client.agent_tokens.create(AgentToken(agent=agent.meta.id, name="first"))
    assert made.secret.startswith(made.prefix)
    assert not client.agent_tokens.get(made.meta.id).secret


def test_what_is_not_in_the_contract_is_no_attribute(client: Client) -> None:
    with pytest.raises(AttributeError, match="instances have no method fly"):
        client.instances.fly  # noqa: B018 - the access is what raises
    with pytest.raises(AttributeError, match="there are no unicorns"):
        client.unicorns  # noqa: B018


def test_a_list_reads_all_pages(client: Client) -> None:
    for number in range(5):
        client.of(Region).create(Region(name=f"r{number}"))
    regions = client.of(Region).list(order_by="name desc", page_size=2)
    assert [region.name for region in regions] == ["r4", "r3", "r2", "r1", "r0"]
    assert [region.name for region in client.regions.list(filter='name = "r3"')] == ["r3"]


def test_refusals_have_classes_reasons_and_fields(client: Client, kahuna: Kahuna) -> None:
    client.regions.create(Region(name="eu"))
    with pytest.raises(errors.Conflict, match="another region is called 'eu'") as taken:
        client.regions.create(Region(name="eu"))
    assert (taken.value.code, taken.value.reason) == ("ALREADY_EXISTS", "NAME_TAKEN")
    with pytest.raises(errors.Invalid) as invalid:
        client.regions.create(Region())
    assert [violation.field for violation in invalid.value.violations] == ["name"]
    with Client(kahuna.endpoint, key="wrong", insecure=True) as stranger, pytest.raises(errors.Denied):
        stranger.regions.get("x")


def test_a_watch_shows_the_set_and_its_changes(client: Client) -> None:
    eu = client.regions.create(Region(name="eu"))
    events = client.of(Region).watch()
    first, synced = next(events), next(events)
    assert (first.change, first.resource and first.resource.name, synced.change) == ("put", "eu", "synced")
    client.regions.delete(eu.meta.id)
    gone = next(event for event in events if event.change == "removed")
    assert (gone.id, gone.resource) == (eu.meta.id, None)
    events.close()  # type: ignore[attr-defined]


def test_the_same_for_asyncio(kahuna: Kahuna, shop: Instance) -> None:
    async def story() -> None:
        async with AsyncClient(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
            made = await client.regions.create(Region(name="asia"))
            changed = await client.of(Region).update(Region(meta=Meta(id=made.meta.id), description="East"))
            assert changed.description == "East"
            assert [region.name async for region in client.regions.list(order_by="name")] == ["asia", "eu", "us"]
            machine = await client.instances.create(shop)
            assert (await client.instances.stop(machine.meta.id)).status.power == POWER_STOPPED
            events = client.of(Region).watch('name = "asia"')
            assert [(await anext(events)).change for _ in range(2)] == ["put", "synced"]
            await events.aclose()  # type: ignore[attr-defined]
            await client.regions.delete(made.meta.id)
            with pytest.raises(errors.NotFound):
                await client.regions.get(made.meta.id)

    asyncio.run(story())
