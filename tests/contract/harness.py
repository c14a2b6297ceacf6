"""Runs the contract's cases against a client in any language: ``python tests/contract/harness.py -- COMMAND``."""

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

HERE = Path(__file__).parent
DEADLINE_MS = 300
BUSY_SECONDS = 2.0
START_SECONDS = 60.0
UNTIL_SECONDS = 60.0
EVENT = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "shop.order"}


class BrokenContractError(Exception):
    """What a client did not do as it should."""


class FakeShim:
    """Does with each request what its script says, the last over and over; ``heard`` is what was asked."""

    def __init__(self, script: Sequence[str]) -> None:
        self.heard: list[dict[str, Any]] = []
        self._script = list(script)
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while (request := _request(connection)) is not None:
                self.heard.append(request)
                act, *words = (self._script.pop(0) if len(self._script) > 1 else self._script[0]).split()
                if not self._act(connection, request, act, words):
                    return

    def _act(self, connection: socket.socket, request: dict[str, Any], act: str, words: list[str]) -> bool:
        """Do as told, and return whether the connection goes on."""
        if act in ("answer", "slow", "drip", "half"):
            closing = words[-2:] == ["then", "close"]
            whole = _http(_answer(request, words[:-2] if closing else words))
            self._send(connection, whole, act)
            return act == "answer" and not closing
        if act in ("status", "model", "text"):
            status = int(words[0]) if words else 200
            connection.sendall(
                _http("not JSON" if act == "text" else {"generation": 7} if act == "model" else {}, status)
            )
            return True
        if act == "hang":
            self._ended.wait(30)
        elif act == "flood":
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not self._ended.is_set():
                connection.sendall(b"x" * 65_536)
        elif act == "garbage":
            connection.sendall(b"\x00\xff" * 1_000)
        elif act == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif act != "close":
            raise ValueError(f"no shim does {act!r}")
        return False

    def _send(self, connection: socket.socket, whole: bytes, act: str) -> None:
        if act == "slow":
            self._ended.wait(2 * DEADLINE_MS / 1e3)
        if act != "drip":
            connection.sendall(whole[:-10] if act == "half" else whole)
            return
        for byte in whole:
            connection.sendall(bytes([byte]))
            if self._ended.wait(0.02):
                return


class Driver:
    """The client's driver: one line out, one line back."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, told: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise BrokenContractError("the driver has no lines")
        try:
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise BrokenContractError(f"the driver ended before {told['do']}") from None
        if not select.select([process.stdout], [], [], seconds)[0]:
            raise BrokenContractError(f"{told['do']} was not answered within {seconds} s")
        line = process.stdout.readline()
        if not line:
            raise BrokenContractError(f"the driver ended at {told['do']}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise BrokenContractError("the driver did not end with its input") from None
        finally:
            if self._process.stdout:
                self._process.stdout.close()
        if code:
            raise BrokenContractError(f"the driver ended with {code}")


def run(case: dict[str, Any], command: Sequence[str]) -> None:
    """Run one case.

    Raises
    ------
    BrokenContractError
        Saying what the client did not do.
    """
    script = case["shim"]
    shim = FakeShim(["close"] if script == "dead" else script)
    driver = Driver(command)
    try:
        url = shim.url
        if script == "dead":
            shim.close()
        started = {"url": url, "configuration": str(HERE / "configuration.toml"), "deadline_ms": DEADLINE_MS}
        driver.ask({"do": "start", "poll_ms": case.get("poll_ms", 0), **started}, seconds=START_SECONDS)
        decided: list[dict[str, Any]] = []
        for step in case["steps"]:
            answer = _step(driver, step, decided[-1] if decided else {})
            decided += [answer] if step["do"] == "decide" else []
        _check_ids(decided, shim.heard)
        _check_heard(case, shim.heard)
    finally:
        shim.close()
        driver.end()


def _step(driver: Driver, step: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    told = {"do": step["do"]}
    if step["do"] == "decide":
        told |= {"event": EVENT | step.get("event", {}), "candidates": step.get("candidates")}
    elif step["do"] == "report":
        told |= {"decision_id": last.get("decision_id", "d"), "served": "a"}
    give_up_at = time.monotonic() + UNTIL_SECONDS
    while True:
        answer = driver.ask(told, seconds=DEADLINE_MS / 1e3 + BUSY_SECONDS)
        if "until" not in step or _differs(answer, step["until"]) is None:
            break
        if time.monotonic() > give_up_at:
            raise BrokenContractError(f"{told['do']} never came to {step['until']}, but stayed {answer}")
        time.sleep(0.02)
    if (wrong := _differs(answer, step.get("expect", {}))) is not None:
        raise BrokenContractError(f"{told['do']}: {wrong}")
    return answer


def _differs(answer: dict[str, Any], expected: dict[str, Any]) -> str | None:
    for name, value in expected.items():
        if answer.get(name) != value:
            return f"{name} must be {value!r}, got {answer.get(name)!r}"
    return None


def _check_ids(decided: Sequence[dict[str, Any]], heard: Sequence[dict[str, Any]]) -> None:
    named = [answer["decision_id"] for answer in decided if answer["destinations"]]
    for name in named:
        if not _is_uuid7(name):
            raise BrokenContractError(f"{name} is no UUID of version 7")
    if len({name[-15:] for name in named}) > 1:
        raise BrokenContractError(f"one event's decisions end differently: {named}")
    asked = {request["body"].get("decision_id") for request in heard if request["path"] == "/v1/decisions"}
    if asked and not set(named) <= asked:
        raise BrokenContractError(f"decided as {set(named) - asked}, asked as {asked}")


def _is_uuid7(name: str) -> bool:
    try:
        return UUID(name).int >> 76 & 0xF == 7
    except ValueError:
        return False


def _check_heard(case: dict[str, Any], heard: Sequence[dict[str, Any]]) -> None:
    if "heard" not in case:
        return
    paths, expected = [request["path"] for request in heard], [one["path"] for one in case["heard"]]
    if paths != expected:
        raise BrokenContractError(f"the shim must hear {expected}, heard {paths}")
    for request, one in zip(heard, case["heard"], strict=True):
        body = request["body"][0] if isinstance(request["body"], list) else request["body"]
        if missing := set(one.get("has", ())) - set(body):
            raise BrokenContractError(f"{one['path']} lacks {sorted(missing)}")


def _request(connection: socket.socket) -> dict[str, Any] | None:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65_536)
        if not chunk:
            return None
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < sum(lengths[:1]):
        body += connection.recv(65_536)
    return {"path": head.split(b" ")[1].decode(), "body": json.loads(body) if body else {}}


def _answer(request: dict[str, Any], destinations: Sequence[str]) -> dict[str, Any]:
    return {
        "decision_id": request["body"].get("decision_id", "d"),
        "stream": "orders",
        "destinations": destinations,
        "reason": "champion",
        "propensity": 0.5,
        "arm": "champion",
        "mode": "on",
        "generation": 7,
        "digest": "f" * 64,
        "decided_at": "2026-01-01T00:00:00Z",
    }


def _http(document: object, status: int = 200) -> bytes:
    body = json.dumps(document).encode() if document != "not JSON" else b"not JSON"
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


def main(arguments: Sequence[str]) -> int:
    """Run every case, print what became of each, and return 1 if one failed."""
    command = list(arguments)[list(arguments).index("--") + 1 :]
    failed = False
    for case in json.loads((HERE / "cases.json").read_text(encoding="utf-8")):
        why = ""
        try:
            run(case, command)
        except BrokenContractError as error:
            failed, why = True, str(error)
        sys.stdout.write(json.dumps({"case": case["name"], "passed": not why, "why": why}) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
