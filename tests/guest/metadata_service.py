"""A metadata service with tokens, as on a host. Arguments: ADDRESS PATH=BODY..."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "let-me-in"
BODIES = dict(argument.split("=", 1) for argument in sys.argv[2:])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        lifetime = self.headers.get("X-metadata-token-ttl-seconds")
        if self.path == "/latest/api/token" and lifetime == "300":
            self.respond(200, TOKEN)
        else:
            self.respond(400)

    def do_GET(self) -> None:
        body = BODIES.get(self.path.removeprefix("/latest/meta-data/"))
        if self.headers.get("X-metadata-token") != TOKEN:
            self.respond(401)
        elif body is None:
            self.respond(404)
        else:
            self.respond(200, body)

    def respond(self, status: int, body: str = "") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer((sys.argv[1], 80), Handler).serve_forever()
