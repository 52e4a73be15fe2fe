"""The response to a request of a known instance. Pure.

No header identifies the instance: only the method, the path, the token and the accepted content type are used.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from agent_kaktus.compute.desired import Instance
from agent_kaktus.metadata import document
from agent_kaktus.metadata.document import Tree
from agent_kaktus.metadata.tokens import MAX_LIFETIME_S, Tokens

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
_LIFETIME_HEADERS = ("x-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token-ttl-seconds")
_TOKEN_HEADERS = ("x-metadata-token", "x-aws-ec2-metadata-token")
_VERSIONS = ("2009-04-04", "latest")  # cloud-init requests the first from EC2
_LIFETIMES = f"1 to {MAX_LIFETIME_S}"
_TTL = f"X-metadata-token-ttl-seconds: {_LIFETIMES}"
_HELP = f"send a token as X-metadata-token; get one with PUT {TOKEN_PATH} and {_TTL}"
_PLAIN, _JSON, _BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]  # names in lower case

    def first_header(self, names: tuple[str, ...]) -> str:
        """The value of the first of these headers that the request has; empty if it has none."""
        return next((self.headers[name] for name in names if name in self.headers), "")


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    type: str = _PLAIN
    headers: tuple[tuple[str, str], ...] = ()


def error_response(status: int, reason: str, *headers: tuple[str, str]) -> Response:
    return Response(status, f"{reason}\n".encode(), headers=headers)


NOT_FOUND = error_response(404, "not found")


def respond(request: Request, instance: Instance, tree: Tree, tokens: Tokens, now: int) -> Response:
    path = request.target.partition("?")[0]
    if "x-forwarded-for" in request.headers:
        return error_response(403, "requests through a proxy are not answered")
    allowed = ("PUT",) if path == TOKEN_PATH else ("GET", "HEAD")
    if request.method not in allowed:
        return error_response(405, f"{' or '.join(allowed)}, not {request.method}", ("allow", ", ".join(allowed)))
    if path == TOKEN_PATH:
        return _issue_token(request, instance, tokens, now)
    if not tokens.is_valid(request.first_header(_TOKEN_HEADERS), instance.id, now):
        return error_response(401, _HELP)
    return _read(path, request, instance, tree)


def _issue_token(request: Request, instance: Instance, tokens: Tokens, now: int) -> Response:
    lifetime = request.first_header(_LIFETIME_HEADERS)
    if not re.fullmatch(r"[0-9]{1,5}", lifetime) or not 1 <= int(lifetime) <= MAX_LIFETIME_S:
        return error_response(400, f"set X-metadata-token-ttl-seconds to the token's lifetime: {_LIFETIMES}")
    token = tokens.issue(instance.id, int(lifetime), now)
    return Response(200, token.encode(), headers=tuple((name, lifetime) for name in _LIFETIME_HEADERS))


def _read(path: str, request: Request, instance: Instance, tree: Tree) -> Response:
    match path.split("/")[1:]:
        case [""]:
            return _text("\n".join(_VERSIONS))
        case [version, *_] if version not in _VERSIONS:
            return NOT_FOUND
        case [_] | [_, ""]:
            return _text("meta-data/\nmeta-data.json" + ("\nuser-data" if instance.user_data else ""))
        case [_, "user-data"] if instance.user_data:
            return Response(200, instance.user_data.encode(), _BYTES)
        case [_, "meta-data.json"] | ["latest", "meta-data"]:
            return _json(tree)
        case [_, "meta-data", *rest]:
            return _read_tree([unquote(name) for name in rest], request, tree)
    return NOT_FOUND


def _read_tree(path: list[str], request: Request, tree: Tree) -> Response:
    found = document.find(tree, path)
    if found is None and path[-1:] == [""]:
        path = path[:-1]
        found = document.find(tree, path)
        found = None if isinstance(found, str) else found
    if found is None:
        return NOT_FOUND
    if isinstance(found, str):
        return _text(found)
    return _json(found) if _JSON in request.headers.get("accept", "") else _text(document.listing(found, path))


def _text(text: str) -> Response:
    return Response(200, text.encode())


def _json(tree: Tree) -> Response:
    return Response(200, json.dumps(tree, indent=2, ensure_ascii=False).encode(), _JSON)
