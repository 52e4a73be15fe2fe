"""Other clients with the methods of `Client`: REST through a real Envoy, and kowactl."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from google.protobuf import json_format
from google.protobuf.message import Message

from deploy.programs import free_port, running
from kowa import contract, errors

BIN = Path(sys.executable).parent
GATEWAY = (sys.executable, "-m", "gateway")
KOWACTL = (str(BIN / "kowactl"),)


class ResourceClient:
    """Resources by kind, as attributes or by message."""

    def of(self, message: type[Message]) -> Any:
        """The resources of a message's kind."""
        return self.resources_of(contract.load().kinds[message.DESCRIPTOR.name])

    def __getattr__(self, plural_name: str) -> Any:
        return self.resources_of(next(kind for kind in contract.load().kinds.values() if kind.nouns == plural_name))

    def resources_of(self, kind: contract.Kind) -> Any:
        """The resources of a kind."""
        raise NotImplementedError


class Rest(ResourceClient):
    """JSON over HTTP."""

    def __init__(self, base: str, key: str) -> None:
        self.http = httpx.Client(base_url=base, headers={"authorization": f"Bearer {key}"})

    def resources_of(self, kind: contract.Kind) -> "RestKind":
        """The resources of a kind."""
        return RestKind(self.http, kind)


class RestKind:
    """The resources of one kind, at `/api/v2/<plural>`."""

    def __init__(self, http: httpx.Client, kind: contract.Kind) -> None:
        self._http, self._kind, self._path = http, kind, f"/api/v2/{kind.plural}"

    def begin_create(self, resource: Message) -> Any:
        """POST."""
        return self._request("POST", self._path, body=resource)

    def begin_update(self, resource: Any, mask: Iterable[str]) -> Any:
        """PATCH with `update_mask`."""
        query = {"update_mask": ",".join(mask)}
        return self._request("PATCH", f"{self._path}/{resource.meta.id}", query, resource)

    def begin_delete(self, id_: str) -> Any:
        """DELETE."""
        return self._request("DELETE", f"{self._path}/{quote(id_, safe='')}")

    def begin(self, verb: str, id_: str = "", **fields: Any) -> Any:
        """POST of a verb, on one resource or, without an id, on the kind."""
        path = f"{self._path}/{id_}" if id_ else self._path
        return self._request("POST", f"{path}:{verb}", body_fields=fields)

    def get(self, id_: str) -> Any:
        """GET of one. With an empty id the path is the list's."""
        return self._parse(self._request("GET", f"{self._path}/{quote(id_, safe='')}"))

    def list(self, **query: Any) -> Iterator[Any]:
        """GET."""
        found = self._request("GET", self._path, query)
        return (self._parse(item) for item in found.get(self._kind.nouns, []))

    def _request(
        self,
        verb: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Message | None = None,
        body_fields: dict[str, Any] | None = None,
    ) -> Any:
        if body is not None:
            body_fields = json_format.MessageToDict(body, preserving_proto_field_name=True)
        response = self._http.request(verb, path, params=query, json=body_fields)
        if response.status_code != httpx.codes.OK:
            raise _error(response)
        return response.json()

    def _parse(self, item: dict[str, Any]) -> Any:
        return json_format.ParseDict(item, contract.load().stub(self._kind.message.name)())


def _error(response: httpx.Response) -> errors.KowaError:
    status = response.json()
    reasons = [detail["reason"] for detail in status.get("details", ()) if "reason" in detail]
    return errors.KowaError(status["message"], code=str(status["code"]), reason=reasons[0] if reasons else "")


class Kowactl(ResourceClient):
    """The kowactl command, one process for each call."""

    def __init__(self, endpoint: str, key: str, command: Sequence[str] = KOWACTL) -> None:
        self._command = command
        self._environment = {**os.environ, "KOWABUNGA_ENDPOINT": endpoint, "KOWABUNGA_API_KEY": key}

    def resources_of(self, kind: contract.Kind) -> "KowactlKind":
        """The resources of a kind."""
        return KowactlKind(self, kind)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Runs it and returns its output. Raises KowaError with its message; the exit code is the error's code."""
        command = [*self._command, "--insecure", *arguments]
        done = subprocess.run(
            command, env=self._environment, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode == 0:
            return done.stdout
        reason = re.search(r"\(([A-Z_]+)\)\s*$", done.stderr)
        raise errors.KowaError(done.stderr.strip(), code=str(done.returncode), reason=reason[1] if reason else "")


class KowactlKind:
    """`kowactl KIND`."""

    def __init__(self, kowactl: Kowactl, kind: contract.Kind) -> None:
        self._run, self._kind = kowactl.run, kind

    def begin_create(self, resource: Message) -> str:
        """Creates it from a file with all its fields."""
        return self._run(self._kind.command, "create", "--no-wait", "--from-file", "-", stdin=self._document(resource))

    def begin_update(self, resource: Any, mask: Iterable[str]) -> str:
        """Updates it from a file with the changed fields and the etag."""
        document = json_format.MessageToDict(resource, preserving_proto_field_name=True)
        changed_fields = {name: document.get(name) for name in mask} | {"meta": {"etag": resource.meta.etag}}
        arguments = (self._kind.command, "update", resource.meta.id, "--no-wait", "--from-file", "-")
        return self._run(*arguments, stdin=json.dumps(changed_fields))

    def begin_delete(self, id_: str) -> str:
        """Deletes it by its id."""
        return self._run(self._kind.command, "delete", "--no-wait", id_)

    def begin(self, verb: str, id_: str = "", **fields: Any) -> str:
        """Calls a verb, on one resource or on the kind; message fields are given as name=value."""
        arguments = [self._kind.command, verb, "--no-wait", *([id_] if id_ else [])]
        for name, value in fields.items():
            for element in value if isinstance(value, list) else [value]:
                is_message = isinstance(element, dict)
                text = ",".join(f"{key}={part}" for key, part in element.items()) if is_message else str(element)
                arguments += [f"--{name}", text]
        return self._run(*arguments)

    def get(self, id_: str) -> Any:
        """Reads one by its id or name."""
        return self._parse(json.loads(self._run(self._kind.command, "get", id_, "-o", "json")))

    def list(self, filter: str = "", order_by: str = "", page_size: int = 0) -> Iterator[Any]:  # noqa: A002
        """Lists resources, as JSON."""
        arguments = ["--filter", filter, "--order-by", order_by, *(["--limit", str(page_size)] if page_size else [])]
        return map(self._parse, json.loads(self._run(self._kind.command, "list", "-o", "json", *arguments)))

    def _parse(self, item: dict[str, Any]) -> Any:
        return json_format.ParseDict(item, contract.load().stub(self._kind.message.name)())

    def _document(self, resource: Message) -> str:
        return json.dumps(json_format.MessageToDict(resource, preserving_proto_field_name=True))


@contextlib.contextmanager
def rest(kahuna: str, key: str, folder: Path, command: Sequence[str] = GATEWAY) -> Iterator[Rest]:
    """REST through an Envoy of its own."""
    plain = f"127.0.0.1:{free_port()}"
    options = ["--plain", plain, "--kahuna", kahuna, "--run-dir", str(folder), "--concurrency", "1"]
    client = Rest(f"http://{plain}", key)
    with client.http, running([*command, *options], lambda: _is_serving(client), "the gateway"):
        yield client


def _is_serving(client: Rest) -> bool:
    try:
        return client.http.get("/api/v2/regions").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
