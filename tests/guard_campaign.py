"""Takes out each guard of the server, one at a time, and sees whether a test notices.

    python tests/guard_campaign.py [--only WORD] [--from N] [--to N]

A guard is a few characters of `minigpt4/serve`; without them the tests named beside it must fail. Prints a line for each guard;
the exit status says whether all of them were missed by somebody. Works on a copy of the tree, for some minutes.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECURITY, LIMITS, CHAT, UNANSWERED, REMOTE = (
    f"tests/test_serve_{name}.py" for name in ("security", "limits", "chat", "unanswered", "remote_images")
)


@dataclass(frozen=True)
class Guard:
    """A guard, the file it is in, what it looks like, what is there without it, and the tests that should miss it."""

    name: str
    file: str
    there: str
    gone: str
    tests: str
    where: str = SECURITY


GUARDS = [
    Guard("loopback is the default", "cli/serve.py", '"host": (Host, "127.0.0.1")', '"host": (Host, "0.0.0.0")', "listens"),
    Guard("other hosts need keys", "serve/keys.py", "if host not in LOOPBACK:", "if False:", "listens"),
    Guard("keys are stored as hashes", "serve/keys.py", "{name} {_hash(key)}\\n", "{name} {key}\\n", "kept_as_hashes"),
    Guard("the file of keys is its owner's", "serve/keys.py", "0o600", "0o644", "kept_as_hashes"),
    Guard("bearer keys alone", "serve/keys.py", 'found if scheme.lower() == "bearer" else None', "found", "kept_as_hashes"),
    Guard("constant time", "serve/keys.py", "hmac.compare_digest(given, known)", "given == known", "constant_time"),
    Guard(
        "no end at the first key that fits",
        "serve/keys.py",
        "                found = name\n",
        "                return name\n",
        "constant_time",
    ),
    Guard("a key is asked for", "serve/gate.py", "if name is None:", "if False:", "without_a_key"),
    Guard(
        "requests are JSON", "serve/gate.py", 'kind not in ("application/json",', 'False and kind not in ("",', "other_sites"
    ),
    Guard("names that point here", "serve/app.py", "if hosts is not None:", "if False:", "name_that_was_made"),
    Guard("rate by key", "serve/gate.py", "self._rates.take(caller)", "pass", "rate_is_limited", LIMITS),
    Guard(
        "rates of each key alone", "serve/gate.py", "self._left[caller] = left - 1, now", "pass", "so_many_requests_in", LIMITS
    ),
    Guard(
        "concurrency by key",
        "serve/gate.py",
        "if self._running[caller] >= self",
        "if False and self",
        "one_key_at_a_time",
        LIMITS,
    ),
    Guard(
        "concurrency of all", "serve/gate.py", "if self._all >= self.allowed.requests:", "if False:", "of_all_at_a_time", LIMITS
    ),
    Guard(
        "body, by its length",
        "serve/gate.py",
        "int(length[:20]) > self.allowed",
        "False and self.allowed",
        "said_to_be_too_large",
        LIMITS,
    ),
    Guard(
        "body, as it comes", "serve/gate.py", "if so_far > self.allowed.body_bytes:", "if False:", "bodies_are_bounded", LIMITS
    ),
    Guard(
        "a body that does not come",
        "serve/bodies.py",
        "asyncio.timeout(BODY_SECONDS)",
        "asyncio.timeout(None)",
        "slow_body",
        LIMITS,
    ),
    Guard("images in a request", "serve/conversation.py", "if count > allowed.images:", "if False:", "so_many_images", LIMITS),
    Guard(
        "characters in a request",
        "serve/conversation.py",
        "if length > allowed.text",
        "if False and allowed.text",
        "so_many_i",
        LIMITS,
    ),
    Guard("pixels", "serve/images.py", ", allowed.image_pixels)", ")", "pixels_are_counted or heic", LIMITS),
    Guard(
        "bytes of an image", "serve/images.py", "if len(data) > allowed.image_bytes:", "if False:", "bytes_are_counted", LIMITS
    ),
    Guard(
        "bytes before base64",
        "serve/images.py",
        "// 4 > allowed.image_bytes + 2",
        "// 4 > 1 << 60",
        "bytes_are_counted",
        LIMITS,
    ),
    Guard(
        "seconds of an answer",
        "serve/answering.py",
        "asyncio.timeout(answering.seconds)",
        "asyncio.timeout(None)",
        "time_is",
        UNANSWERED,
    ),
    Guard(
        "seconds of a stream",
        "serve/chat.py",
        "asyncio.timeout(seconds)",
        "asyncio.timeout(None)",
        "time_is_limited",
        UNANSWERED,
    ),
    Guard("a full queue", "serve/errors.py", "if isinstance(error, EngineFull):", "if False:", "full_queue", UNANSWERED),
    Guard(
        "who leaves is cancelled",
        "serve/answering.py",
        "await http.is_disconnected()",
        "False",
        "client_that_leaves",
        UNANSWERED,
    ),
    Guard(
        "who leaves a stream is", "serve/answering.py", "self.ticket.cancel()", "self.ticket", "client_that_leaves", UNANSWERED
    ),
    Guard(
        "words that mean an image",
        "serve/conversation.py",
        "words.append(plain(part.text))",
        "words.append(part.text)",
        "words_that",
        CHAT,
    ),
    Guard("nothing is fetched", "serve/images.py", "if not allowed.remote_images:", "if False:", "nothing_is_fetched", REMOTE),
    Guard(
        "no file",
        "serve/images.py",
        '        raise UserError("an image must be a data URI: data:image/jpeg;base64,...")',
        '        data = open(url.removeprefix("file://").removeprefix("localhost"), "rb").read()',
        "no_file_of_the_server",
    ),
    Guard("public addresses", "serve/remote.py", "return ip.is_global and", "return True and", "not_public", REMOTE),
    Guard("no multicast", "serve/remote.py", " and not ip.is_multicast", "", "not_public", REMOTE),
    Guard("IPv6 that is given out", "serve/remote.py", "ip not in _UNICAST or ", "", "not_public", REMOTE),
    Guard("examples in IPv6", "serve/remote.py", " or ip in _DOCUMENTATION", "", "not_public", REMOTE),
    Guard(
        "IPv4 within IPv6", "serve/remote.py", "if ip.ipv4_mapped is not None:", "if False:", "not_public or that_are", REMOTE
    ),
    Guard("tunnels", "serve/remote.py", "ip.sixtofour is not None or ip.teredo is not None", "False", "not_public", REMOTE),
    Guard("every address of a name", "serve/remote.py", "not all(is_public", "not any(is_public", "every_address", REMOTE),
    Guard(
        "the address that was checked",
        "serve/remote.py",
        "(self._address, self.port)",
        "(self.host, self.port)",
        "changes_its",
        REMOTE,
    ),
    Guard(
        "each redirect", "serve/remote.py", "address = public_address(host, port)", "address = host", "each_redirect", REMOTE
    ),
    Guard("few redirects", "serve/remote.py", "range(_REDIRECTS + 1)", "range(99)", "each_redirect", REMOTE),
    Guard("http alone", "serve/remote.py", 'or parts.scheme not in ("http", "https") ', "", "each_redirect", REMOTE),
    Guard("no user in an address", "serve/remote.py", " or parts.username is not None", "", "no_names_and_passwords", REMOTE),
    Guard(
        "bytes of what is fetched",
        "serve/remote.py",
        "if len(content) > most_bytes:",
        "if False:",
        "fetched_is_bounded",
        REMOTE,
    ),
    Guard(
        "seconds of a fetch", "serve/remote.py", "connection.set_timeout(_left(deadline))", "pass", "fetched_is_bounded", REMOTE
    ),
    Guard(
        "nothing is repeated", "serve/errors.py", "{first['msg']}\"[:500]", "{error.errors()[0]['input']}\"[:500]", "secrets"
    ),
    Guard(
        "failures are ours to know",
        "serve/errors.py",
        '"the server failed at this request; its log says why"',
        "str(error)",
        "secrets",
    ),
    Guard("the page's policy", "serve/gate.py", "else PAGE_POLICY", 'else ""', "load_nothing_from_elsewhere"),
    Guard(
        "the frame's policy",
        "serve/gate.py",
        'FRAME_POLICY if path == "/frame" else PAGE_POLICY',
        "PAGE_POLICY",
        "load_nothing",
    ),
    Guard("nosniff", "serve/gate.py", '    "X-Content-Type-Options": "nosniff",\n', "", "load_nothing_from_elsewhere"),
    Guard("answers are not stored", "serve/gate.py", 'headers.setdefault("Cache-Control", "no-store")', "pass", "load_nothing"),
    Guard("no page unless asked for", "serve/app.py", "    if page:\n", "    if True:\n", "no_page_unless"),
    Guard(
        "what was accepted is finished",
        "serve/run.py",
        "timeout_graceful_shutdown=max(1, round(allowed.seconds))",
        "timeout_graceful_shutdown=0",
        "the_command_serves",
    ),
]


def missed(guard: Guard, tree: Path) -> str | None:
    """The tests that fail without the guard; None if none does."""
    file = tree / "minigpt4" / guard.file
    text = file.read_text()
    if guard.there not in text:
        sys.exit(f"{guard.name}: {guard.file} has no {guard.there!r} any more")
    file.write_text(text.replace(guard.there, guard.gone))
    out = tree / "out"
    try:
        child = os.fork()  # what is imported already need not be read again
        if not child:
            signal.alarm(90)  # a server that should have refused to start serves for ever
            with out.open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(tree / guard.where), "-k", guard.tests])
                sys.stdout.flush()
            os._exit(int(code))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        file.write_text(text)
    said = out.read_text()
    if code == -signal.SIGALRM:
        return f"{guard.tests} (never ends)"
    if code not in (0, 1):
        sys.exit(f"{guard.name}: no test was run: {said[-500:]}")
    return ", ".join(sorted(set(re.findall(r"(?:FAILED|ERROR) \S+::(\w+)", said)))) or "an error" if code else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="guards whose names have this in them")
    parser.add_argument("--from", type=int, default=1, dest="first", help="number of the first guard")
    parser.add_argument("--to", type=int, default=len(GUARDS), dest="last", help="number of the last")
    given = parser.parse_args()
    unnoticed = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("minigpt4", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        sys.dont_write_bytecode = True  # a file that is changed and changed back within a second looks unchanged
        sys.path[:0] = [str(tree), str(tree / "tests")]
        for module in ("minigpt4.inference.assistant", "openai", "fastapi", "uvicorn", "httpx2"):
            import_module(module)
        chosen = [guard for guard in GUARDS[given.first - 1 : given.last] if given.only in guard.name]
        for guard in chosen:
            by = missed(guard, tree)
            unnoticed += [] if by else [guard.name]
            print(f"{guard.name} ({guard.file}): {by or 'NOBODY MISSES IT'}", flush=True)
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} guards are missed by a test when they are taken out")
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
