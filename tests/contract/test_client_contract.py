"""Our own client keeps the contract that any client in any language can be run against, and a client that does not is found out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = [case["name"] for case in json.loads((HERE / "cases.json").read_text())]


def run(driver: Path) -> dict[str, dict[str, object]]:
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "harness.py"), "--", sys.executable, str(driver)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == int(not all(one["passed"] for one in told)), done.stderr
    return {one["case"]: one for one in told}


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, object]]:
    return run(HERE / "python_client.py")


@pytest.mark.parametrize("name", CASES)
def test_s20_the_client_keeps_its_contract(kept: dict[str, dict[str, object]], name: str) -> None:
    assert kept[name]["passed"], kept[name]["why"]


def test_a_client_that_answers_by_rote_is_found_out(tmp_path: Path) -> None:
    driver = tmp_path / "rote.py"
    driver.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    told = json.loads(line)\n"
        "    answer = {'destinations': ['a', 'b'], 'decision_id': 'd', 'logged': False, 'state': 'ready', 'accepted': True}\n"
        "    print(json.dumps(answer), flush=True)\n"
    )
    assert not any(one["passed"] for name, one in run(driver).items() if "never ends for good" not in name)
