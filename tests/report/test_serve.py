"""The server of a view: its files and nothing else, to this machine and nobody else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforest.report.serve import ViewServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ViewServer]:
    folder = tmp_path / "view"
    (folder / "image" / "0").mkdir(parents=True)
    (folder / "index.html").write_text("<p>page")
    (folder / "a b.js").write_text("script")
    (folder / "image" / "0" / "0_0.jpg").write_bytes(b"tile")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "view-secret").mkdir()
    (tmp_path / "view-secret" / "x").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    (folder / "links").symlink_to(tmp_path)
    with ViewServer(folder) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: ViewServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host if host is not None else f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}


def test_files_of_the_folder_are_served(server: ViewServer) -> None:
    status, body, headers = ask(server, "/")
    assert (status, body) == (200, b"<p>page")
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert ask(server, "/index.html?x#row=1")[:2] == (200, b"<p>page")
    assert ask(server, "/a%20b.js")[:2] == (200, b"script")
    status, body, headers = ask(server, "/image/0/0_0.jpg")
    assert (status, body, headers["content-type"]) == (200, b"tile", "image/jpeg")
    assert ask(server, "/", "HEAD")[:2] == (200, b"")
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, "/", host="localhost:9999")[0] == 200  # through a tunnel


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/image/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/image/%2e%2e%2f%2e%2e%2fsecret.txt",
        "//secret.txt",
        "/../view-secret/x",
        "/link",
        "/links/secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "/image",
        "/image/",
        "/image/0/",
        "/missing.js",
        "/index.html/",
        "/a\\..\\..\\secret.txt",
    ],
)
def test_nothing_else_is_served(server: ViewServer, path: str) -> None:
    status, body, _ = ask(server, path)
    assert status == 404
    assert b"secret" not in body.replace(path.encode(), b"")
    assert ask(server, path, "HEAD")[0] == 404


@pytest.mark.parametrize("host", ["example.org", "example.org:80", "", "127.0.0.1.example.org", "10.0.0.1"])
def test_other_pages_cannot_read_along(server: ViewServer, host: str) -> None:
    status, body, _ = ask(server, "/", host=host)
    assert status == 403
    assert b"page" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(server: ViewServer, method: str) -> None:
    assert ask(server, "/index.html", method)[0] == 501


def test_it_listens_on_this_machine_alone(server: ViewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_a_port_that_is_taken(server: ViewServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        ViewServer(tmp_path, port=server.server_port)
