"""The same calls through other clients, with the methods of `Client`: REST through a real Envoy, and kowactl."""

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
        return self.speak(contract.load().kinds[message.DESCRIPTOR.name])

    def __getattr__(self, nouns: str) -> Any:
        return self.speak(next(kind for kind in contract.load().kinds.values() if kind.nouns == nouns))

    def speak(self, kind: contract.Kind) -> Any:
        """The resources of a kind."""
        raise NotImplementedError


class Rest(ResourceClient):
    """JSON over HTTP."""

    def __init__(self, base: str, key: str) -> None:
        self.http = httpx.Client(base_url=base, headers={"authorization": f"Bearer {key}"})

    def speak(self, kind: contract.Kind) -> "RestKind":
        """The resources of a kind."""
        return RestKind(self.http, kind)


class RestKind:
    """The resources of one kind, at `/api/v2/<plural>`."""

    def __init__(self, http: httpx.Client, kind: contract.Kind) -> None:
        self._http, self._kind, self._path = http, kind, f"/api/v2/{kind.plural}"

    def begin_create(self, resource: Message) -> Any:
        """POST."""
        return self._ask("POST", self._path, body=resource)

    def begin_update(self, resource: Any, mask: Iterable[str]) -> Any:
        """PATCH with `update_mask`."""
        query = {"update_mask": ",".join(mask)}
        return self._ask("PATCH", f"{self._path}/{resource.meta.id}", query, resource)

    def begin_delete(self, id_: str) -> Any:
        """DELETE."""
        return self._ask("DELETE", f"{self._path}/{quote(id_, safe='')}")

    def begin(self, verb: str, id_: str = "", **fields: Any) -> Any:
        """POST of a verb, of one or of the kind."""
        return self._ask("POST", f"{self._path}/{id_}:{verb}" if id_ else f"{self._path}:{verb}", sent=fields)

    def get(self, id_: str) -> Any:
        """GET of one. Without an id that path is the list's."""
        return self._parse(self._ask("GET", f"{self._path}/{quote(id_, safe='')}"))

    def list(self, **query: Any) -> Iterator[Any]:
        """GET."""
        found = self._ask("GET", self._path, query)
        return (self._parse(item) for item in found.get(self._kind.nouns, []))

    def _ask(
        self,
        verb: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Message | None = None,
        sent: dict[str, Any] | None = None,
    ) -> Any:
        if body is not None:
            sent = json_format.MessageToDict(body, preserving_proto_field_name=True)
        answer = self._http.request(verb, path, params=query, json=sent)
        if answer.status_code != httpx.codes.OK:
            raise _error(answer)
        return answer.json()

    def _parse(self, item: dict[str, Any]) -> Any:
        return json_format.ParseDict(item, contract.load().stub(self._kind.message.name)())


def _error(answer: httpx.Response) -> errors.KowaError:
    status = answer.json()
    reasons = [detail["reason"] for detail in status.get("details", ()) if "reason" in detail]
    return errors.KowaError(status["message"], code=str(status["code"]), reason=reasons[0] if reasons else "")


class Kowactl(ResourceClient):
    """The command, as a process for each call."""

    def __init__(self, endpoint: str, key: str, command: Sequence[str] = KOWACTL) -> None:
        self._command = command
        self._environment = {**os.environ, "KOWABUNGA_ENDPOINT": endpoint, "KOWABUNGA_API_KEY": key}

    def speak(self, kind: contract.Kind) -> "KowactlKind":
        """The resources of a kind."""
        return KowactlKind(self, kind)

    def run(self, *words: str, stdin: str = "") -> str:
        """What it prints. Raises KowaError with what it says when it refuses; its exit code is the error's code."""
        command = [*self._command, "--insecure", *words]
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
        """From a file with all of it."""
        return self._run(self._kind.command, "create", "--no-wait", "--from-file", "-", stdin=self._document(resource))

    def begin_update(self, resource: Any, mask: Iterable[str]) -> str:
        """From a file with what changes, and the etag."""
        document = json_format.MessageToDict(resource, preserving_proto_field_name=True)
        kept = {name: document.get(name) for name in mask} | {"meta": {"etag": resource.meta.etag}}
        words = (self._kind.command, "update", resource.meta.id, "--no-wait", "--from-file", "-")
        return self._run(*words, stdin=json.dumps(kept))

    def begin_delete(self, id_: str) -> str:
        """By its id."""
        return self._run(self._kind.command, "delete", "--no-wait", id_)

    def begin(self, verb: str, id_: str = "", **fields: Any) -> str:
        """A verb, of one or of the kind; what has fields of its own as name=value."""
        words = [self._kind.command, verb, "--no-wait", *([id_] if id_ else [])]
        for name, value in fields.items():
            for one in value if isinstance(value, list) else [value]:
                part = ",".join(f"{key}={held}" for key, held in one.items()) if isinstance(one, dict) else str(one)
                words += [f"--{name}", part]
        return self._run(*words)

    def get(self, id_: str) -> Any:
        """By its id, or what the caller takes for one."""
        return self._parse(json.loads(self._run(self._kind.command, "get", id_, "-o", "json")))

    def list(self, filter: str = "", order_by: str = "", page_size: int = 0) -> Iterator[Any]:  # noqa: A002
        """As JSON."""
        words = ["--filter", filter, "--order-by", order_by, *(["--limit", str(page_size)] if page_size else [])]
        return map(self._parse, json.loads(self._run(self._kind.command, "list", "-o", "json", *words)))

    def _parse(self, item: dict[str, Any]) -> Any:
        return json_format.ParseDict(item, contract.load().stub(self._kind.message.name)())

    def _document(self, resource: Message) -> str:
        return json.dumps(json_format.MessageToDict(resource, preserving_proto_field_name=True))


@contextlib.contextmanager
def rest(kahuna: str, key: str, folder: Path, command: Sequence[str] = GATEWAY) -> Iterator[Rest]:
    """REST through an Envoy of its own."""
    plain = f"127.0.0.1:{free_port()}"
    options = ["--plain", plain, "--kahuna", kahuna, "--run-dir", str(folder), "--concurrency", "1"]
    speaker = Rest(f"http://{plain}", key)
    with speaker.http, running([*command, *options], lambda: _answers(speaker), "the gateway"):
        yield speaker


def _answers(speaker: Rest) -> bool:
    try:
        return speaker.http.get("/api/v2/regions").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
