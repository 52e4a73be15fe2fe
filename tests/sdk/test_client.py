"""What a Python program may rely on."""

import asyncio
import re
from contextlib import aclosing
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
from kowa.v2.zone_pb2 import Zone
from tests.sdk.fixtures import LIMIT, Kahuna, first


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


def edited(machine: Instance) -> Instance:
    """Read before, with two fields emptied and one raised."""
    machine.description = ""
    del machine.metadata["motd"]
    machine.vcpus = 2
    return machine


def test_what_was_read_edited_and_sent_back_is_as_edited_also_where_it_was_emptied(
    client: Client, shop: Instance, kahuna: Kahuna
) -> None:
    shop.description, shop.metadata["motd"] = "the shop's", "hello"
    made = client.of(Instance).create(shop)
    changed = client.of(Instance).update(edited(made))
    assert (changed.description, dict(changed.metadata), changed.vcpus) == ("", {}, 2)
    assert (changed.volumes, changed.kaktus, changed.power) == (made.volumes, made.kaktus, POWER_RUNNING)

    async def story() -> None:
        async with AsyncClient(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
            changed.description, changed.metadata["motd"] = "the shop's", "hello"
            again = await client.of(Instance).update(changed)
            emptied = await client.of(Instance).update(edited(again))
            assert (emptied.description, dict(emptied.metadata)) == ("", {})

    asyncio.run(story())


def test_what_may_not_change_is_refused_when_it_was_edited_and_not_left_out(client: Client) -> None:
    eu, us = (client.of(Region).create(Region(name=name)) for name in ("eu", "us"))
    zone = client.of(Zone).create(Zone(region=eu.meta.id, name="a"))
    zone.region = us.meta.id
    with pytest.raises(errors.Invalid, match="region: can't be changed"):
        client.of(Zone).update(zone)


def test_what_was_not_read_changes_what_is_set_in_it(client: Client) -> None:
    made = client.of(Region).create(Region(name="eu", description="Europe"))
    changed = client.of(Region).update(Region(meta=Meta(id=made.meta.id), name="europe"))
    assert (changed.name, changed.description) == ("europe", "Europe")


def test_a_change_may_only_be_begun(client: Client) -> None:
    begun = client.regions.begin_create(Region(name="eu"))
    operation = client.operations.wait(begun.operation_id)
    assert (operation.method, operation.target, operation.phase) == ("CreateRegion", begun.resource.meta.id, PHASE_DONE)


def test_a_machine_runs_when_create_returns(client: Client, shop: Instance) -> None:
    made = client.of(Instance).create(shop)
    assert (made.meta.state, made.status.power) == (STATE_READY, POWER_RUNNING)
    assert client.instances.stop(made.meta.id).status.power == POWER_STOPPED
    begun = client.instances.begin_start(made.meta.id)
    assert client.operations.wait(begun.operation_id, 60).phase == PHASE_DONE


def test_a_secret_shown_once_is_in_the_answer(client: Client) -> None:
    agent = client.agents.create(Agent(name="host-1"))
    made = client.agent_tokens.create(AgentToken(agent=agent.meta.id, name="first"))
    assert made.secret.startswith(made.prefix)
    assert not client.agent_tokens.get(made.meta.id).secret


def test_what_is_not_in_the_contract_is_no_attribute(client: Client) -> None:
    with pytest.raises(AttributeError, match="instances have no method fly"):
        client.instances.fly  # noqa: B018 - the access is what raises
    with pytest.raises(AttributeError, match="cancel of operations has no plan"):
        client.operations.plan_cancel("x")
    with pytest.raises(AttributeError, match=r"there are no unicorns in kowa\.v2$"):
        client.unicorns  # noqa: B018
    with pytest.raises(AttributeError, match=r"there are no instancs in kowa\.v2; did you mean instances\?"):
        client.instancs  # noqa: B018


def test_what_is_repeated_with_its_request_id_is_done_once(client: Client) -> None:
    made = [client.of(Region).create(Region(name="eu"), request_id="make eu") for _ in range(2)]
    assert made[0].meta.id == made[1].meta.id
    changed = Region(meta=Meta(id=made[0].meta.id), description="Europe")
    for _ in range(2):
        client.of(Region).update(changed, request_id="describe eu")
    for _ in range(2):
        client.of(Region).delete(made[0].meta.id, request_id="drop eu")
    client.of(Region).create(Region(name="us"), request_id="")
    assert [operation.method for operation in client.operations.list(order_by="meta.create_time")] == [
        "CreateRegion", "UpdateRegion", "DeleteRegion", "CreateRegion"
    ]  # fmt: skip


def test_a_verb_repeated_with_its_request_id_is_done_once(client: Client, shop: Instance) -> None:
    made = client.of(Instance).create(shop)
    begun = [client.instances.begin_stop(made.meta.id, request_id="stop web") for _ in range(2)]
    assert begun[0].operation_id == begun[1].operation_id


def test_a_plan_says_what_would_be_and_nothing_comes_of_it(client: Client, shop: Instance) -> None:
    instances = client.of(Instance)
    planned = instances.plan_create(shop)
    assert (planned.name, bool(planned.kaktus)) == ("web", True)
    assert not list(instances.list())
    before = instances.create(shop)
    made = instances.get(before.meta.id)
    made.vcpus = 2
    assert instances.plan_update(made).vcpus == 2
    assert client.instances.plan_stop(made.meta.id).power == POWER_STOPPED
    instances.plan_delete(made.meta.id)
    assert instances.get(made.meta.id) == before
    with pytest.raises(errors.Conflict, match="delete the instance first"):
        client.volumes.plan_delete(made.volumes[0])


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
    with Client(kahuna.endpoint, key="wrong", insecure=True) as client, pytest.raises(errors.Denied):
        client.regions.get("x")


def test_a_watch_shows_the_set_and_its_changes(client: Client) -> None:
    eu = client.regions.create(Region(name="eu"))
    events = client.of(Region).watch()
    put, synced = first(2, events)
    assert (put.change, put.resource and put.resource.name, synced.change) == ("put", "eu", "synced")
    client.regions.delete(eu.meta.id)
    (gone,) = first(1, (event for event in events if event.change == "removed"))
    assert (gone.id, gone.resource) == (eu.meta.id, None)
    events.close()


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
            async with asyncio.timeout(LIMIT):
                assert [(await anext(events)).change for _ in range(2)] == ["put", "synced"]
            await events.aclose()
            await client.regions.delete(made.meta.id)
            with pytest.raises(errors.NotFound):
                await client.regions.get(made.meta.id)
            twice = [await client.of(Region).begin_create(Region(name="af"), request_id="af") for _ in range(2)]
            assert twice[0].operation_id == twice[1].operation_id
            assert (await client.instances.plan_start(machine.meta.id)).power == POWER_RUNNING
            assert (await client.instances.get(machine.meta.id)).power == POWER_STOPPED
            with pytest.raises(errors.Conflict, match="delete the instance first"):
                await client.volumes.plan_delete(machine.volumes[0])

    asyncio.run(story())


WRONG_PLACES = [
    # endpoint, key                                  what is said
    ("", "key", "no endpoint: give one, or set KOWABUNGA_ENDPOINT"),
    (" \n", "key", "no endpoint"),
    ("http://kahuna.example", "key", "http://kahuna.example is not an endpoint; write it as HOST:PORT"),
    ("https://kahuna.example/api/v2", "key", "is not an endpoint"),
    ("kahuna.example:443", "two\nkeys", "KOWABUNGA_API_KEY holds characters that no key has"),
    ("kahuna.example:443", "clé", "KOWABUNGA_API_KEY holds characters that no key has"),
]


@pytest.mark.parametrize(("endpoint", "key", "says"), WRONG_PLACES)
def test_what_can_not_be_an_endpoint_or_a_key(
    endpoint: str, key: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KOWABUNGA_ENDPOINT", raising=False)
    with pytest.raises(ValueError, match=re.escape(says)):
        Client(endpoint, key=key, insecure=True)


def test_white_space_and_https_around_an_endpoint_and_a_key_say_nothing(kahuna: Kahuna) -> None:
    for endpoint in (f" {kahuna.endpoint}\n", f"https://{kahuna.endpoint}/"):
        with Client(endpoint, key=f"{kahuna.key}\r\n", insecure=True) as client:
            assert list(client.regions.list()) == []


def test_a_verb_with_a_stream_of_answers_is_an_iterator(kahuna: Kahuna, shop: Instance) -> None:
    async def story() -> None:
        async with AsyncClient(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
            web = (await client.of(Instance).create(shop)).meta.id
            async with aclosing(client.instances.console(web)) as shown:
                session = (await anext(shown)).session
                assert (await anext(shown)).data == b"login: "
                typed = await client.instances.type_console(web, session=session, data=b"root")
                assert (typed.offset, (await anext(shown)).data) == (4, b"ROOT")

    asyncio.run(story())
