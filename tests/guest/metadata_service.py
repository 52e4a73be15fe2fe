"""A metadata service that gives tokens for PUT and its answers only for a token. Arguments: ADDRESS, PATH=BODY..."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "let-me-in"
ANSWERS = dict(argument.split("=", 1) for argument in sys.argv[2:])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        lifetime = self.headers.get("X-metadata-token-ttl-seconds")
        if self.path == "/latest/api/token" and lifetime == "300":
            self.answer(200, TOKEN)
        else:
            self.answer(400)

    def do_GET(self) -> None:
        body = ANSWERS.get(self.path.removeprefix("/latest/meta-data/"))
        if self.headers.get("X-metadata-token") != TOKEN:
            self.answer(401)
        elif body is None:
            self.answer(404)
        else:
            self.answer(200, body)

    def answer(self, status: int, body: str = "") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer((sys.argv[1], 80), Handler).serve_forever()
