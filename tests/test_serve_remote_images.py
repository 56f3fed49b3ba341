"""Images of other servers: what is fetched when that is allowed, what never. Each test fails when its guard is taken out."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from serving import as_bytes, assistant, picture, post_url, serving

from minigpt4.errors import UserError
from minigpt4.serve import remote
from minigpt4.serve.settings import Allowed


@pytest.fixture(scope="module")
def at():
    with serving(assistant()) as address:
        yield address


@pytest.fixture
def elsewhere():
    """A web server of ours; `.paths` is what it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.paths.append(self.path)
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
                return
            if self.path == "/none":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            try:
                if self.path == "/endless":
                    for _ in range(400):  # far more than is allowed
                        self.wfile.write(b"x" * 65536)
                elif self.path == "/drip":
                    for _ in range(400):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                else:
                    self.wfile.write(as_bytes(picture()))
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.paths = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def test_nothing_is_fetched_unless_it_is_allowed(at, elsewhere):
    answer = post_url(at, f"{elsewhere.address}/a.png")
    assert answer.status_code == 400
    assert "fetches no images" in answer.json()["error"]["message"]
    assert not elsewhere.paths


def test_no_address_that_is_not_public_is_fetched(elsewhere):
    with serving(assistant(), allowed=Allowed(remote_images=True)) as at:
        answer = post_url(at, f"{elsewhere.address}/a.png")
        assert answer.status_code == 400
        assert "not a public one" in answer.json()["error"]["message"]
    assert not elsewhere.paths


PRIVATE = (
    "127.0.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 192.0.2.1 "
    "240.0.0.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: "
    "2001:0:1::1 4000::1 fec0::1 64:ff9b:1::a00:1 3fff::1"
).split()


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address):
    assert not remote.is_public(address)


def test_addresses_that_are():
    assert all(map(remote.is_public, ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8")))


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "127.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_other_spellings_of_this_machine(host):
    with pytest.raises(UserError, match="not a public|cannot be found"):
        remote.fetch(f"http://{host}/a.png", 1000, 5)


def resolves(monkeypatch, *answers):
    """Names stand for these addresses, one answer after the other (the last one for ever)."""
    left = list(answers)

    def getaddrinfo(host, port, *_, **__):
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(remote.socket, "getaddrinfo", getaddrinfo)


def test_no_names_and_passwords_in_addresses(monkeypatch, elsewhere):
    resolves(monkeypatch, ["8.8.8.8"])
    reaching(monkeypatch, elsewhere, [])
    with pytest.raises(UserError, match="plain http"):
        remote.fetch("http://user:word@a.example/a.png", 10_000, 5)


def test_every_address_of_a_name_must_be_public(monkeypatch):
    resolves(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(UserError, match="not a public"):
        remote.public_address("a.example", 80)


def reaching(monkeypatch, elsewhere, connected):
    """Connections to the open internet end at our own server; those to anywhere else are noted too."""

    def create_connection(address, timeout=None):
        connected.append(address[0])
        link = socket.socket()
        link.settimeout(timeout)
        link.connect(("127.0.0.1", elsewhere.server_port))
        return link

    monkeypatch.setattr(remote.socket, "create_connection", create_connection)


def test_a_name_that_changes_its_mind_is_held_to_the_address_that_was_checked(monkeypatch, elsewhere):
    connected = []
    resolves(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    reaching(monkeypatch, elsewhere, connected)
    assert remote.fetch("http://a.example/a.png", 10_000, 5).startswith(b"\x89PNG")
    assert connected == ["8.8.8.8"]


def test_each_redirect_is_checked(monkeypatch, elsewhere):
    connected = []
    resolves(monkeypatch, ["8.8.8.8"], ["8.8.4.4"], ["127.0.0.1"])
    reaching(monkeypatch, elsewhere, connected)
    with pytest.raises(UserError, match="not a public"):
        remote.fetch("http://a.example/to?http://b.example/to?http://c.example/a.png", 10_000, 5)
    assert connected == ["8.8.8.8", "8.8.4.4"]
    resolves(monkeypatch, ["8.8.8.8"])
    with pytest.raises(UserError, match="plain http"):
        remote.fetch("http://a.example/to?file:///etc/passwd", 10_000, 5)
    with pytest.raises(UserError, match="plain http"):
        remote.fetch("http://a.example/to?ftp://a.example/a.png", 10_000, 5)
    with pytest.raises(UserError, match="too often"):
        remote.fetch("http://a.example/to?/to?/to?/to?/to?/a.png", 10_000, 5)


@pytest.mark.parametrize(
    ("path", "said"), [("/endless", "bytes allowed"), ("/drip", "too long|cannot be read"), ("/none", "status 404")]
)
def test_what_is_fetched_is_bounded(path, said, monkeypatch, elsewhere):
    resolves(monkeypatch, ["8.8.8.8"])
    reaching(monkeypatch, elsewhere, [])
    with pytest.raises(UserError, match=said):
        remote.fetch(f"http://a.example{path}", 200_000, 0.5)
