"""A view over HTTP, for this machine alone: for browsers that open no local files, or that come through a tunnel."""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from patchforest import __version__

HOST = "127.0.0.1"
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


class ViewServer(ThreadingHTTPServer):
    """Serves the files of one folder on 127.0.0.1; ``serve_forever`` until ``shutdown`` or an interrupt.

    Only GET and HEAD, only regular files within the folder (a link that leads out of it is not followed), no lists of
    folders, and only to requests that name this machine as their host, so that no other web page can read along.

    Parameters
    ----------
    port : 0 takes any that is free; see ``url``.

    Raises
    ------
    OSError : the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: str | Path, *, port: int = 0) -> None:
        self.folder = Path(os.path.realpath(folder))
        super().__init__((HOST, port), partial(_Handler, directory=str(self.folder)))

    @property
    def url(self) -> str:
        """Address of the view."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(SimpleHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"patchforest/{__version__}", ""

    def send_head(self):  # type: ignore[no-untyped-def]  # of the base class: an open file, or None after an error
        """The answer's head, after the checks; the files themselves are the base class's work."""
        if self.headers.get("Host", "").split(":")[0] not in (HOST, "localhost"):  # any port: of a tunnel
            self.send_error(HTTPStatus.FORBIDDEN, "this server answers to its own address only")
            return None
        wanted = self.translate_path(self.path)
        if wanted.rstrip(os.sep) == str(self.server.folder):
            wanted = str(self.server.folder / "index.html")
        found = Path(os.path.realpath(wanted))
        if not found.is_relative_to(self.server.folder) or not found.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Also: nothing may be loaded from elsewhere, and a view written anew is seen at once."""
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a view asks for thousands of tiles."""
