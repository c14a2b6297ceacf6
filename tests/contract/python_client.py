"""Drives ``serving.client`` by the contract's lines."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from features import config
from features.cloudevents import CloudEvent
from features.records import Candidate, Outcome
from serving.client import Client
from serving.plan import Plan


def start(told: dict[str, Any]) -> Client:
    plan = Plan.of(config.load(Path(told["configuration"])))
    client = Client(
        url=told["url"],
        plan=plan,
        deadline_seconds=told["deadline_ms"] / 1e3,
        poll_seconds=(told["poll_ms"] or 5_000) / 1e3,
    )
    if told["poll_ms"]:
        client.watch()
    return client


def obey(client: Client, told: dict[str, Any]) -> dict[str, Any]:
    if told["do"] == "state":
        return {"state": client.state}
    if told["do"] == "report":
        outcome = Outcome(
            decision_id=told["decision_id"], served=told["served"], observed_at=datetime.now(UTC), success=True
        )
        return {"accepted": client.report(outcome)}
    candidates = told["candidates"] and msgspec.convert(told["candidates"], list[Candidate])
    answer = client.decide(msgspec.convert(told["event"], CloudEvent), candidates)
    return {"destinations": answer.destinations, "decision_id": answer.decision_id, "logged": answer.logged}


def main() -> None:
    client = start(json.loads(sys.stdin.readline()))
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(obey(client, json.loads(line))) + "\n")
        sys.stdout.flush()
    client.close()


if __name__ == "__main__":
    main()
