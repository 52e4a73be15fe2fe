"""The SDK's clients against a real Kahuna."""

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
from tests.sdk.fixtures import TIMEOUT_S, Kahuna, first


def test_endpoint_key_and_ca_come_from_the_environment(
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


def test_a_resource_is_created_updated_and_deleted(client: Client) -> None:
    created = client.regions.create(Region(name="eu"))
    assert client.regions.get(created.meta.id).meta.etag == created.meta.etag
    changed = client.regions.update(
        Region(meta=created.meta, name="ignored", description="Europe"), mask=["description"]
    )
    assert (changed.name, changed.description) == ("eu", "Europe")
    client.regions.delete(created.meta.id)
    with pytest.raises(errors.NotFound, match=created.meta.id):
        client.regions.get(created.meta.id)


def edited(instance: Instance) -> Instance:
    """Clears two fields of a read instance and changes one."""
    instance.description = ""
    del instance.metadata["motd"]
    instance.vcpus = 2
    return instance


def test_a_resource_that_was_read_and_edited_is_updated_including_cleared_fields(
    client: Client, wanted_instance: Instance, kahuna: Kahuna
) -> None:
    wanted_instance.description, wanted_instance.metadata["motd"] = "the shop's", "hello"
    created = client.of(Instance).create(wanted_instance)
    changed = client.of(Instance).update(edited(created))
    assert (changed.description, dict(changed.metadata), changed.vcpus) == ("", {}, 2)
    assert (changed.volumes, changed.kaktus, changed.power) == (created.volumes, created.kaktus, POWER_RUNNING)

    async def run() -> None:
        async with AsyncClient(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
            changed.description, changed.metadata["motd"] = "the shop's", "hello"
            again = await client.of(Instance).update(changed)
            emptied = await client.of(Instance).update(edited(again))
            assert (emptied.description, dict(emptied.metadata)) == ("", {})

    asyncio.run(run())


def test_an_edited_immutable_field_is_sent_and_refused(client: Client) -> None:
    eu, us = (client.of(Region).create(Region(name=name)) for name in ("eu", "us"))
    zone = client.of(Zone).create(Zone(region=eu.meta.id, name="a"))
    zone.region = us.meta.id
    with pytest.raises(errors.Invalid, match="region: can't be changed"):
        client.of(Zone).update(zone)


def test_a_resource_that_was_not_read_updates_its_set_fields_only(client: Client) -> None:
    created = client.of(Region).create(Region(name="eu", description="Europe"))
    changed = client.of(Region).update(Region(meta=Meta(id=created.meta.id), name="europe"))
    assert (changed.name, changed.description) == ("europe", "Europe")


def test_a_change_can_be_started_without_waiting(client: Client) -> None:
    started = client.regions.begin_create(Region(name="eu"))
    operation = client.operations.wait(started.operation_id)
    assert (operation.method, operation.target, operation.phase) == (
        "CreateRegion",
        started.resource.meta.id,
        PHASE_DONE,
    )


def test_an_instance_runs_when_create_returns(client: Client, wanted_instance: Instance) -> None:
    created = client.of(Instance).create(wanted_instance)
    assert (created.meta.state, created.status.power) == (STATE_READY, POWER_RUNNING)
    assert client.instances.stop(created.meta.id).status.power == POWER_STOPPED
    started = client.instances.begin_start(created.meta.id)
    assert client.operations.wait(started.operation_id, 60).phase == PHASE_DONE


def test_a_secret_is_in_the_response_of_create_only(client: Client) -> None:
    agent = client.agents.create(Agent(name="host-1"))
    created = client.agent_tokens.create(AgentToken(agent=agent.meta.id, name="first"))
    assert created.secret.startswith(created.prefix)
    assert not client.agent_tokens.get(created.meta.id).secret


def test_names_outside_the_contract_raise_attribute_errors(client: Client) -> None:
    with pytest.raises(AttributeError, match="instances have no method fly"):
        client.instances.fly  # noqa: B018 - the access is what raises
    with pytest.raises(AttributeError, match="cancel of operations has no plan"):
        client.operations.plan_cancel("x")
    with pytest.raises(AttributeError, match=r"there are no unicorns in kowa\.v2$"):
        client.unicorns  # noqa: B018
    with pytest.raises(AttributeError, match=r"there are no instancs in kowa\.v2; did you mean instances\?"):
        client.instancs  # noqa: B018


def test_a_change_repeated_with_its_request_id_is_done_once(client: Client) -> None:
    created = [client.of(Region).create(Region(name="eu"), request_id="make eu") for _ in range(2)]
    assert created[0].meta.id == created[1].meta.id
    changed = Region(meta=Meta(id=created[0].meta.id), description="Europe")
    for _ in range(2):
        client.of(Region).update(changed, request_id="describe eu")
    for _ in range(2):
        client.of(Region).delete(created[0].meta.id, request_id="drop eu")
    client.of(Region).create(Region(name="us"), request_id="")
    assert [operation.method for operation in client.operations.list(order_by="meta.create_time")] == [
        "CreateRegion", "UpdateRegion", "DeleteRegion", "CreateRegion"
    ]  # fmt: skip


def test_a_verb_repeated_with_its_request_id_is_done_once(client: Client, wanted_instance: Instance) -> None:
    created = client.of(Instance).create(wanted_instance)
    started = [client.instances.begin_stop(created.meta.id, request_id="stop web") for _ in range(2)]
    assert started[0].operation_id == started[1].operation_id


def test_a_plan_returns_the_result_and_changes_nothing(client: Client, wanted_instance: Instance) -> None:
    instances = client.of(Instance)
    planned = instances.plan_create(wanted_instance)
    assert (planned.name, bool(planned.kaktus)) == ("web", True)
    assert not list(instances.list())
    before = instances.create(wanted_instance)
    created = instances.get(before.meta.id)
    created.vcpus = 2
    assert instances.plan_update(created).vcpus == 2
    assert client.instances.plan_stop(created.meta.id).power == POWER_STOPPED
    instances.plan_delete(created.meta.id)
    assert instances.get(created.meta.id) == before
    with pytest.raises(errors.Conflict, match="delete the instance first"):
        client.volumes.plan_delete(created.volumes[0])


def test_a_list_reads_all_pages(client: Client) -> None:
    for number in range(5):
        client.of(Region).create(Region(name=f"r{number}"))
    regions = client.of(Region).list(order_by="name desc", page_size=2)
    assert [region.name for region in regions] == ["r4", "r3", "r2", "r1", "r0"]
    assert [region.name for region in client.regions.list(filter='name = "r3"')] == ["r3"]


def test_errors_have_classes_reasons_and_fields(client: Client, kahuna: Kahuna) -> None:
    client.regions.create(Region(name="eu"))
    with pytest.raises(errors.Conflict, match="another region is called 'eu'") as taken:
        client.regions.create(Region(name="eu"))
    assert (taken.value.code, taken.value.reason) == ("ALREADY_EXISTS", "NAME_TAKEN")
    with pytest.raises(errors.Invalid) as invalid:
        client.regions.create(Region())
    assert [violation.field for violation in invalid.value.violations] == ["name"]
    with Client(kahuna.endpoint, key="wrong", insecure=True) as client, pytest.raises(errors.Denied):
        client.regions.get("x")


def test_a_watch_sends_all_resources_and_then_changes(client: Client) -> None:
    eu = client.regions.create(Region(name="eu"))
    events = client.of(Region).watch()
    put, synced = first(2, events)
    assert (put.change, put.resource and put.resource.name, synced.change) == ("put", "eu", "synced")
    client.regions.delete(eu.meta.id)
    (gone,) = first(1, (event for event in events if event.change == "removed"))
    assert (gone.id, gone.resource) == (eu.meta.id, None)
    events.close()


def test_the_asyncio_client_has_the_same_methods(kahuna: Kahuna, wanted_instance: Instance) -> None:
    async def run() -> None:
        async with AsyncClient(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
            created = await client.regions.create(Region(name="asia"))
            changed = await client.of(Region).update(Region(meta=Meta(id=created.meta.id), description="East"))
            assert changed.description == "East"
            assert [region.name async for region in client.regions.list(order_by="name")] == ["asia", "eu", "us"]
            instance = await client.instances.create(wanted_instance)
            assert (await client.instances.stop(instance.meta.id)).status.power == POWER_STOPPED
            events = client.of(Region).watch('name = "asia"')
            async with asyncio.timeout(TIMEOUT_S):
                assert [(await anext(events)).change for _ in range(2)] == ["put", "synced"]
            await events.aclose()
            await client.regions.delete(created.meta.id)
            with pytest.raises(errors.NotFound):
                await client.regions.get(created.meta.id)
            twice = [await client.of(Region).begin_create(Region(name="af"), request_id="af") for _ in range(2)]
            assert twice[0].operation_id == twice[1].operation_id
            assert (await client.instances.plan_start(instance.meta.id)).power == POWER_RUNNING
            assert (await client.instances.get(instance.meta.id)).power == POWER_STOPPED
            with pytest.raises(errors.Conflict, match="delete the instance first"):
                await client.volumes.plan_delete(instance.volumes[0])

    asyncio.run(run())


INVALID_SETTINGS = [
    # endpoint, key, message
    ("", "key", "no endpoint: give one, or set KOWABUNGA_ENDPOINT"),
    (" \n", "key", "no endpoint"),
    ("http://kahuna.example", "key", "http://kahuna.example is not an endpoint; write it as HOST:PORT"),
    ("https://kahuna.example/api/v2", "key", "is not an endpoint"),
    ("kahuna.example:443", "two\nkeys", "KOWABUNGA_API_KEY holds characters that no key has"),
    ("kahuna.example:443", "clé", "KOWABUNGA_API_KEY holds characters that no key has"),
]


@pytest.mark.parametrize(("endpoint", "key", "message"), INVALID_SETTINGS)
def test_an_invalid_endpoint_or_key_is_refused(
    endpoint: str, key: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KOWABUNGA_ENDPOINT", raising=False)
    with pytest.raises(ValueError, match=re.escape(message)):
        Client(endpoint, key=key, insecure=True)


def test_white_space_and_https_around_an_endpoint_and_a_key_are_ignored(kahuna: Kahuna) -> None:
    for endpoint in (f" {kahuna.endpoint}\n", f"https://{kahuna.endpoint}/"):
        with Client(endpoint, key=f"{kahuna.key}\r\n", insecure=True) as client:
            assert list(client.regions.list()) == []


def test_a_verb_with_a_stream_of_responses_is_an_iterator(kahuna: Kahuna, wanted_instance: Instance) -> None:
    async def run() -> None:
        async with AsyncClient(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
            web = (await client.of(Instance).create(wanted_instance)).meta.id
            async with aclosing(client.instances.console(web)) as responses:
                session = (await anext(responses)).session
                assert (await anext(responses)).data == b"login: "
                response = await client.instances.type_console(web, session=session, data=b"root")
                assert (response.offset, (await anext(responses)).data) == (4, b"ROOT")

    asyncio.run(run())
