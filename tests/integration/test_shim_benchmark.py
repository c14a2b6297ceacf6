"""The load generator and the echo are compiled and count what they should; without a compiler that is said."""

import shutil
from pathlib import Path

import pytest

from benchmarks import loading, shim, shim_world
from benchmarks.loading import Server
from serving import intake


def test_without_a_compiler_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert shim.main(["--quick"]) == 2
    assert "compiler" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("rate", [0.0, 200.0])
def test_the_load_generator_asks_with_numbers_of_its_own(tmp_path: Path, rate: float) -> None:
    programs = loading.compile_programs(tmp_path)
    port = loading.free_port()
    echo = Server("echo", [str(programs.echo), str(port)], port, {}, health=None)
    echo.start()
    try:
        template = tmp_path / "one.http"
        template.write_bytes(shim_world.request("/v1/decisions", shim_world.question()))
        told = programs.run(port, template, seconds=0.5, connections=3, rate=rate, first=100)
    finally:
        echo.stop()
    assert told["n"] > 0
    assert (told["refused"], told["other"], told["broken"]) == (0, 0, 0)
    assert 0 <= told["next"] - 100 - told["n"] <= 3, "every answer was to a question of its own"
    assert 0 < told["p50_us"] <= told["p99_us"]


def test_what_is_asked_is_a_question_that_the_shim_understands() -> None:
    content = shim_world.request("/v1/decisions", [shim_world.question("1"), shim_world.question("2")])
    asked, batch = intake.decision_requests({"content-type": "application/json"}, content.partition(b"\r\n\r\n")[2])
    assert batch
    assert [len(one.candidates or ()) for one in asked] == [shim_world.N_CANDIDATES] * 2
