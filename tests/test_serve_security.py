"""What a server keeps to itself, and what it does not let happen. Each test fails when its guard is taken out."""

import io
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import httpx2
import openai
import pytest
import uvicorn
from conftest import quick_folder
from PIL import Image
from serving import as_bytes, assistant, picture, post, post_url, serving, slow, uri, with_image

from minigpt4.cli.serve import SERVER
from minigpt4.errors import UserError
from minigpt4.serve import keys as keys_module
from minigpt4.serve.keys import Keys, add_key, keys_for
from minigpt4.serve.run import run


@pytest.fixture(scope="module")
def at():
    with serving(assistant(), page=True, hosts=["127.0.0.1", "localhost"]) as address:
        yield address


# where it listens, and whom it answers ---------------------------------------------------------------------------------


def test_it_listens_on_this_machine_alone_unless_there_are_keys(monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, **_: pytest.fail("it serves"))  # for ever, otherwise
    assert SERVER.options["host"][1] == "127.0.0.1"
    with pytest.raises(UserError, match="others could ask too"):
        run("tiny", assistant, host="0.0.0.0", port=0)
    assert keys_for("127.0.0.1", None) is keys_for("::1", None) is None


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "keys"


def test_keys_are_kept_as_hashes_that_their_owner_alone_can_read(key_file):
    key = add_key(key_file, "ann")
    other = add_key(key_file, "bob")
    text = key_file.read_text()
    assert key not in text
    assert key.removeprefix("mg4-") not in text
    assert other != key
    assert len(key) > 40
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    known = Keys.read(key_file)
    assert known.name_of(f"Bearer {key}") == "ann"
    assert known.name_of(f"bearer {other}") == "bob"
    for wrong in ("", key, f"Basic {key}", f"Bearer {key}x", "Bearer", "Bearer \udcff", f"Bearer {text.split()[1]}"):
        assert known.name_of(wrong) is None
    with pytest.raises(UserError, match="already"):
        add_key(key_file, "ann")
    with pytest.raises(UserError, match="one word"):
        add_key(key_file, "a b")


class FullDisk(io.FileIO):
    """Takes ten bytes, then there is no room."""

    def write(self, data):
        return super().write(bytes(data)[:10])


def test_a_key_for_which_there_is_no_room_leaves_no_half_line(key_file, monkeypatch):
    def opened(descriptor, mode, buffering):
        return FullDisk(descriptor, mode)

    monkeypatch.setattr(keys_module, "open", opened, raising=False)
    with pytest.raises(UserError, match="No space left on device"):
        add_key(key_file, "ann")
    monkeypatch.undo()
    key = add_key(key_file, "ann")  # the empty file is no obstacle
    monkeypatch.setattr(keys_module, "open", opened, raising=False)
    with pytest.raises(UserError, match="the keys that were there are as they were"):
        add_key(key_file, "bob")
    monkeypatch.undo()
    assert Keys.read(key_file).name_of(f"Bearer {key}") == "ann"
    key_file.write_text(key_file.read_text().rstrip("\n"))  # as an editor may leave it
    other = add_key(key_file, "bob")
    assert [Keys.read(key_file).name_of(f"Bearer {k}") for k in (key, other)] == ["ann", "bob"]


def test_keys_are_compared_in_constant_time(key_file, monkeypatch):
    keys = [add_key(key_file, name) for name in ("ann", "bob", "cid")]
    compared = []
    compare = keys_module.hmac.compare_digest
    monkeypatch.setattr(keys_module.hmac, "compare_digest", lambda a, b: compared.append(1) or compare(a, b))
    known = Keys.read(key_file)
    for given in (*keys, "wrong"):
        compared.clear()
        known.name_of(f"Bearer {given}")
        assert len(compared) == 3, "every key is compared, whichever fits"


def test_a_file_of_something_else_is_no_file_of_keys(key_file):
    for content, said in (("", "holds no key"), ("ann secret", "line 1"), (None, "cannot be read")):
        if content is None:
            key_file.unlink()
        else:
            key_file.write_text(content)
        with pytest.raises(UserError, match=said):
            Keys.read(key_file)


def test_without_a_key_nothing_is_answered(key_file):
    key = add_key(key_file, "ann")
    with serving(assistant(), keys=Keys.read(key_file), page=True) as at:
        for path in ("/v1/models", "/metrics"):
            answer = httpx2.get(f"{at}{path}")
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        for path in ("/health", "/ready", "/"):
            assert httpx2.get(f"{at}{path}").status_code == 200
        wrong = openai.OpenAI(base_url=f"{at}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        right = openai.OpenAI(base_url=f"{at}/v1", api_key=key, max_retries=0)
        assert right.models.list().data
        assert right.chat.completions.create(model="tiny", messages=[with_image("hm?")]).choices


def test_pages_of_other_sites_cannot_ask(at):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hm?"}]}
    import json

    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = httpx2.post(f"{at}/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": kind})
        assert answer.status_code == 415, kind
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    preflight = httpx2.options(f"{at}/v1/chat/completions", headers=asked)
    answer = post(at, headers={"Origin": "https://elsewhere.example"})
    for response in (preflight, answer):
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    assert preflight.status_code == 405


def test_a_name_that_was_made_to_point_here_is_refused(at):
    refused = httpx2.get(f"{at}/v1/models", headers={"Host": "elsewhere.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_host")
    assert "--allow-host NAME" in refused.json()["error"]["message"]
    assert httpx2.get(f"{at}/v1/models", headers={"Host": "localhost"}).status_code == 200


# no file of the server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["{}", "file://{}", "file://localhost{}", "data:{}", "data:image/png;base64,../..{}", "\\\\host{}"]
)
def test_no_file_of_the_server_can_be_read(form, at, tmp_path):
    file = tmp_path / "private.png"
    picture().save(file)
    answer = post_url(at, form.format(file))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_image"
    assert str(file) not in answer.text


@pytest.mark.parametrize(
    "path", ["/../app.py", "/..%2fapp.py", "/page/app.js", "/app.py", "//etc/passwd", "/style.css/../../app.py"]
)
def test_no_file_beside_the_page_is_served(path, at):
    host, port = at.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: link.recv(65536), b""))
    assert b" 404 " in answer.split(b"\r\n", 1)[0]
    assert b"FastAPI" not in answer


def test_a_path_as_model_or_text_is_only_text(at, tmp_path):
    file = tmp_path / "private.txt"
    file.write_text("secret")
    answer = post(at, {"model": str(file), "messages": [with_image("hm?")]})
    assert answer.status_code == 404
    assert "secret" not in answer.text
    assert post(at, {"model": "tiny", "messages": [{"role": "user", "content": str(file)}]}).status_code == 200


# what is said ------------------------------------------------------------------------------------------------------------


def test_no_secrets_and_no_images_in_logs_or_errors(key_file, caplog, monkeypatch):
    key = add_key(key_file, "ann")
    system = assistant()
    caplog.set_level(logging.DEBUG)
    logging.getLogger("uvicorn.access").propagate = True
    secret, words = uri(Image.effect_noise((30, 30), 90)), "very private words"
    with serving(system, keys=Keys.read(key_file)) as at:
        ours = {"Authorization": f"Bearer {key}"}
        message = {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": secret}}, {"type": "text", "text": words}],
        }
        said = []
        for change in ({}, {"temperature": words}, {words: 1}, {"messages": [message | {"role": words}]}, {"model": 1}):
            said.append(post(at, {"model": "tiny", "messages": [message]} | change, headers=ours).text)
        post(at, headers={"Authorization": f"Bearer {key}wrong"})
        monkeypatch.setattr(system.engine, "submit", lambda *_: 1 / 0)
        broken = post(at, {"model": "tiny", "messages": [message]}, headers=ours)
        assert broken.status_code == 500
        assert "division" not in broken.text
        assert broken.json()["error"]["type"] == "server_error"
    assert "division by zero" in caplog.text, "the log says why"
    middle = secret[200:260]
    for text in (caplog.text, broken.text, *said):
        assert key not in text
        assert middle not in text
    assert words not in caplog.text
    assert words not in said[1], "a value that is wrong is not repeated"


def test_the_page_may_load_nothing_from_elsewhere(at):
    answer = httpx2.get(f"{at}/")
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    frame = httpx2.get(f"{at}/frame").headers["content-security-policy"]
    assert "sandbox allow-scripts;" in frame
    assert "allow-same-origin" not in frame
    assert "default-src 'none'" in frame
    assert httpx2.get(f"{at}/v1/models").headers["cache-control"] == "no-store"


def test_there_is_no_page_unless_it_is_asked_for():
    with serving(assistant()) as at:
        assert httpx2.get(f"{at}/").status_code == 404


# the end -----------------------------------------------------------------------------------------------------------------


def test_what_was_accepted_is_finished_before_the_end(monkeypatch):
    system = assistant(endless=True)
    slow(system, monkeypatch)
    with serving(system) as at, httpx2.Client() as session:
        request = {"model": "tiny", "messages": [with_image("hm?")], "max_tokens": 60, "stream": True}
        with session.stream("POST", f"{at}/v1/chat/completions", json=request, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            at.server.should_exit = True
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert len(rest) > 20
        at.thread.join(20)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{at}/health")


def test_the_command_serves_and_ends_when_it_is_told_to(tmp_path):
    quick_folder(tmp_path / "system")
    command = [sys.executable, "-m", "minigpt4", "serve", "--model", str(tmp_path / "system"), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        line = process.stderr.readline()
        assert line.startswith("The API: http://127.0.0.1:")
        at = line.split()[2].removesuffix("/v1")
        deadline = time.monotonic() + 60
        while httpx2.get(f"{at}/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = httpx2.post(
            f"{at}/v1/chat/completions", json={"model": "system", "messages": [with_image("hm?")], "max_tokens": 3}, timeout=60
        )
        assert answer.status_code == 200
        long = {"model": "system", "messages": [with_image("hm?")], "stream": True, "max_tokens": 400, "min_new_tokens": 400}
        with httpx2.stream("POST", f"{at}/v1/chat/completions", json=long, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]", "what was accepted is finished"
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --keys FILE"),
        (["--keys", "nowhere"], "cannot be read as a file of keys"),
        (["--new-key", "ann"], "needs --keys"),
        (["--replicas", "2"], "--replicas goes with --ray"),
        (["--port", "0", "--model", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "minigpt4", "serve", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr


def test_the_command_makes_keys(tmp_path):
    command = [sys.executable, "-m", "minigpt4", "serve", "--keys", "keys", "--new-key", "ann"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert Keys.read(tmp_path / "keys").name_of(f"Bearer {done.stdout.strip()}") == "ann"


# images that browsers do not show ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "WEBP", "BMP", "HEIF"])
def test_images_are_converted_for_browsers(kind, at):
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.register_heif_opener()
    data = as_bytes(picture((10, 200, 30), (64, 48)), kind)
    answer = httpx2.post(f"{at}/v1/images/convert", content=data, headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 200, answer.text
    shown = Image.open(io.BytesIO(answer.content))
    assert (shown.format, shown.size) == ("JPEG", (64, 48))
    assert max(abs(a - b) for a, b in zip(shown.getpixel((5, 5)), (10, 200, 30), strict=True)) < 20
    broken = httpx2.post(f"{at}/v1/images/convert", content=data[:40], headers={"Content-Type": "image/x"})
    assert broken.status_code == 400
