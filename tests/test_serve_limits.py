"""How much a server lets others ask: requests, bytes, images, pixels. Each test fails when its guard is taken out."""

import base64
import socket
import struct
import time
import zlib

import httpx2
import pytest
from PIL import Image
from serving import as_bytes, assistant, picture, post, post_url, serving, slow, uri, wait_until, with_image
from test_serve_security import at, key_file  # noqa: F401  (fixtures)

from minigpt4.errors import UserError
from minigpt4.serve import bodies
from minigpt4.serve.errors import ApiError
from minigpt4.serve.gate import Rates
from minigpt4.serve.images import decode, read_image
from minigpt4.serve.keys import Keys, add_key
from minigpt4.serve.settings import Allowed


def test_so_many_requests_in_a_minute():
    now = [0.0]
    rates = Rates(3, lambda: now[0])
    for _ in range(3):
        rates.take("ann")
    with pytest.raises(ApiError) as error:
        rates.take("ann")
    assert error.value.status == 429
    assert error.value.headers["Retry-After"] == "20"
    rates.take("bob")
    now[0] = 20.1
    rates.take("ann")
    with pytest.raises(ApiError):
        rates.take("ann")
    now[0] = 1e6
    for _ in range(3):
        rates.take("ann")
    with pytest.raises(ApiError):
        rates.take("ann")


def test_the_rate_is_limited_over_http():
    with serving(assistant(), allowed=Allowed(per_minute=2)) as at:
        assert [post(at).status_code for _ in range(3)] == [200, 200, 429]


def test_so_many_requests_of_one_key_at_a_time(key_file, monkeypatch):
    ann, bob = add_key(key_file, "ann"), add_key(key_file, "bob")
    system = assistant(endless=True)
    slow(system, monkeypatch)
    with serving(system, keys=Keys.read(key_file), allowed=Allowed(requests_per_key=1)) as at, httpx2.Client() as session:
        request = {"model": "tiny", "messages": [with_image("hm?")], "max_tokens": 300, "stream": True}
        mine = {"Authorization": f"Bearer {ann}"}
        with session.stream("POST", f"{at}/v1/chat/completions", json=request, headers=mine) as answer:
            lines = answer.iter_lines()
            next(lines)
            second = post(at, headers=mine)
            assert second.status_code == 429
            assert second.json()["error"]["code"] == "concurrency_limit"
            assert post(at, headers={"Authorization": f"Bearer {bob}"}).status_code == 200
        deadline = time.monotonic() + 20
        while post(at, headers=mine).status_code != 200:
            assert time.monotonic() < deadline, "its place is free again"


def test_so_many_requests_of_all_at_a_time(monkeypatch):
    system = assistant(endless=True)
    slow(system, monkeypatch)
    with serving(system, allowed=Allowed(requests=1)) as at, httpx2.Client() as session:
        request = {"model": "tiny", "messages": [with_image("hm?")], "max_tokens": 300, "stream": True}
        with session.stream("POST", f"{at}/v1/chat/completions", json=request) as answer:
            lines = answer.iter_lines()
            next(lines)
            second = post(at)
            assert (second.status_code, second.json()["error"]["code"]) == (429, "server_busy")
            assert httpx2.get(f"{at}/health").status_code == 200


def test_a_slow_body_is_given_up(at, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    host, port = at.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as link:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        link.sendall(f"{head}Content-Length: 9\r\n\r\n{{".encode())
        assert b" 408 " in link.recv(65536).split(b"\r\n", 1)[0]


def test_who_leaves_before_the_body_has_come_is_no_failure(caplog):
    with serving(assistant()) as at:
        host, port = at.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as link:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            link.sendall(f"{head}Content-Length: 9\r\n\r\n{{".encode())
        wanted = 'path="/v1/chat/completions",status="499"} 1.0'
        wait_until(lambda: wanted in httpx2.get(f"{at}/metrics").text)
    assert "Traceback" not in caplog.text


def test_bodies_are_bounded_with_and_without_a_length():
    with serving(assistant(), allowed=Allowed(body_bytes=1000)) as at:
        address, kind = f"{at}/v1/chat/completions", {"Content-Type": "application/json"}
        whole = httpx2.post(address, content=b" " * 2000, headers=kind)
        pieces = httpx2.post(address, content=(b" " * 500 for _ in range(4)), headers=kind)
        for answer in (whole, pieces):
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"


def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.0)
    with serving(assistant(), allowed=Allowed(body_bytes=1000)) as at:
        host, port = at.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as link:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            link.sendall(f"{head}Content-Length: 1001\r\n\r\n".encode())  # and nothing after it
            assert b" 413 " in link.recv(65536).split(b"\r\n", 1)[0]


def test_so_many_images_and_words():
    with serving(assistant(), allowed=Allowed(images=2, text_characters=50)) as at:
        two, three = (with_image("hm?", *[picture()] * n) for n in (2, 3))
        assert post(at, {"model": "tiny", "messages": [two]}).status_code == 200
        answer = post(at, {"model": "tiny", "messages": [three]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert post(at, {"model": "tiny", "messages": [with_image("x" * 51)]}).status_code == 400


def bomb(width, height):
    """A small PNG file whose header promises many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (60000, 60000)])
def test_pixels_are_counted_before_anything_is_decoded(size, at, monkeypatch):
    loaded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: loaded.append(self.size))
    data = base64.b64encode(bomb(*size)).decode()
    answer = post_url(at, f"data:image/png;base64,{data}")
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert "pixels" in message
    assert "allowed" in message
    assert not loaded


def test_pixels_of_heic_are_counted_too():
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = as_bytes(picture("red", (64, 64)), "HEIF")
    assert decode(data, Allowed(image_pixels=64 * 64)).size == (64, 64)
    with pytest.raises(UserError, match="allowed"):
        decode(data, Allowed(image_pixels=64 * 64 - 1))


def test_bytes_are_counted_before_anything_is_decoded(monkeypatch):
    allowed = Allowed(image_bytes=500)
    noise = as_bytes(Image.effect_noise((64, 64), 50))
    with pytest.raises(UserError, match="500 bytes"):
        decode(noise, allowed)
    monkeypatch.setattr(base64, "b64decode", lambda *_, **__: pytest.fail("it is decoded"))
    with pytest.raises(UserError, match="500 bytes"):
        read_image(uri(Image.effect_noise((64, 64), 50)), allowed)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_a_limit_that_is_no_number_above_nought_is_refused(value):
    """Infinity was taken, and the server ended with an OverflowError."""
    with pytest.raises(UserError, match=r"seconds must be a number above 0, not"):
        Allowed(seconds=value)
