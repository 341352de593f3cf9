"""A web server on this machine, in place of the public addresses of a data set."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """A web server on this machine. `answers` maps a path to what is sent; `asked` logs paths.

    An answer is bytes, an HTTP status, "silent" (says nothing), ("cut", bytes) for half of them, or
    ("paused", bytes) for one half and, when `gate` is set, the other.
    `files`, by name, is what it can `offer` in a folder.
    """

    def __init__(self, files):
        self.files = files
        self.answers = {}
        self.asked = []
        self.gate = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                server.reply(self)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False  # so that closing waits for every answer to end
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def reply(self, handler):
        answer = self.answers.get(handler.path, 404)
        if answer == "silent":
            self.gate.wait(30)
            return
        if isinstance(answer, int):
            handler.send_error(answer)
            return
        rest = b""
        if isinstance(answer, tuple):
            kind, answer = answer
            half = len(answer) // 2
            sent, rest = answer[:half], answer[half:] if kind == "paused" else b""
        else:
            sent = answer
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may have been killed meanwhile
            handler.wfile.write(sent)
            if rest:
                self.gate.wait(30)
                handler.wfile.write(rest)

    def offer(self, base, names=None):
        for name in names or self.files:
            self.answers[f"/{base}/{name}"] = self.files[name]

    def close(self):
        self.gate.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
