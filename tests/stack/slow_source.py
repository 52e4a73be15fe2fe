"""A web server whose downloads start and never end."""

import http.server
import threading


class SlowSource:
    """Counts its requests; drops their connections when it is closed."""

    def __init__(self, address: str) -> None:
        self.requests = 0
        self._closing = threading.Event()
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(1 << 30))
                self.end_headers()
                self.wfile.write(b"QFI")
                self.wfile.flush()
                source.requests += 1
                source._closing.wait()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden method's name
                """Logs nothing."""

        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://{address}:{self._server.server_port}/slow.qcow2"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
