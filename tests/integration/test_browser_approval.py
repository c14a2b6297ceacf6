"""A real browser in MLflow's real pages: a reviewer presses *Promote model* and a canary begins; a trainer is refused.

``TURNOUT_SCREENSHOTS=docs/images`` keeps the pictures that ``docs/promotion.md`` shows:
``TURNOUT_SCREENSHOTS=docs/images python -m pytest tests/integration/test_browser_approval.py``.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from flows.settings import Settings
from flows.wiring import Wiring
from models.registered import Version

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the group `browser` has it")

from selenium.webdriver.common.by import By  # noqa: E402 - only where selenium is
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
REPOSITORY = Path(__file__).parents[2]
WAIT_SECONDS = 60
PASSWORD = "a-long-password-1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's and its database's own
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with its driver: apt-get install chromium chromium-driver",
    ),
]


class Page:
    """MLflow's pages as one user sees them."""

    def __init__(self, driver: Any, address: str, shots: Path) -> None:
        self._driver, self._address, self._shots = driver, address, shots

    def open(self, path: str) -> None:
        self._driver.get(f"{self._address}{path}")
        self.button("Promote model")
        for close in self._driver.find_elements(By.CSS_SELECTOR, "[aria-label='Close']"):
            close.click()  # the assistant beside the page

    def text(self) -> str:
        return str(self._driver.find_element(By.TAG_NAME, "body").text)

    def await_text(self, *words: str) -> None:
        WebDriverWait(self._driver, WAIT_SECONDS).until(lambda _: all(word in self.text() for word in words))

    def await_address(self, part: str) -> None:
        WebDriverWait(self._driver, WAIT_SECONDS).until(lambda driver: part in driver.current_url)

    def button(self, label: str, within: str = "body") -> Any:
        def find(driver: Any) -> Any:
            held = driver.find_elements(By.CSS_SELECTOR, f"{within} button")
            return next((b for b in held if b.text == label and b.is_displayed()), None)

        return WebDriverWait(self._driver, WAIT_SECONDS).until(find)

    def promote_to(self, model: str) -> None:
        """Press the button, choose the model, and press again, as a person does."""
        self.button("Promote model").click()
        wait = WebDriverWait(self._driver, WAIT_SECONDS)
        field = wait.until(lambda driver: driver.find_element(By.ID, "selectedModel"))
        field.click()
        field.send_keys(model)
        options = ".du-bois-light-select-item-option"

        def find(driver: Any) -> Any:
            return next((o for o in driver.find_elements(By.CSS_SELECTOR, options) if o.text == model), None)

        wait.until(find).click()
        self.button("Promote", "[role=dialog]").click()

    def shoot(self, name: str, *, of: str = "body") -> None:
        """Keep a picture of a part of the page; 64 colours are enough for pages, and take a third of the room."""
        part = self._driver.find_element(By.CSS_SELECTOR, of)
        taken = Image.open(BytesIO(part.screenshot_as_png)).convert("RGB")
        taken.quantize(64).save(self._shots / name, optimize=True)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("TURNOUT_SCREENSHOTS")
    folder = REPOSITORY / kept if kept else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def wired(secured: Settings, settle: Callable[[Settings], Wiring], tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    home = tmp_path_factory.mktemp("browsed")
    made = settle(replace(secured, home=home, config_path=home / "turnout.toml"))
    made.snapshot()
    return made


@pytest.fixture(scope="module")
def candidate(wired: Wiring, learned: Any, be: Callable[..., Any]) -> Version:
    with be("trainer"):
        registered: Version = learned.register(wired)
    return registered


@pytest.fixture
def browse(secured: Settings, shots: Path) -> Callable[[str], Any]:
    """A context in which a user has MLflow's pages open in a browser."""

    @contextmanager
    def opened(user: str) -> Iterator[Page]:
        options = selenium.ChromeOptions()
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,1100",
        ):
            options.add_argument(argument)
        options.binary_location = str(CHROMIUM)
        driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
        try:
            driver.get(f"http://{user}:{PASSWORD}@{urlsplit(secured.tracking_uri).netloc}/")
            yield Page(driver, secured.tracking_uri, shots)
        finally:
            driver.quit()

    return opened


def approvals(wired: Wiring, candidate: Version) -> list[Version]:
    return [v for v in wired.registry.versions("router") if v.candidate == (candidate.name, candidate.number)]


def test_p06_a_trainer_who_presses_promote_is_refused(
    wired: Wiring, candidate: Version, browse: Callable[[str], Any], be: Callable[..., Any]
) -> None:
    with be("trainer"):
        before = len(approvals(wired, candidate))
        with browse("trainer") as page:
            page.open(candidate.page)
            page.promote_to("router")
            page.await_text("Permission denied")
            page.shoot("promotion-refused.png")
        assert len(approvals(wired, candidate)) == before


def test_a_reviewer_who_presses_promote_starts_the_canary(
    wired: Wiring, candidate: Version, browse: Callable[[str], Any], be: Callable[..., Any]
) -> None:
    with browse("bob") as page:
        page.open(candidate.page)
        page.await_text("Where it loses", "at 100 % destination")
        page.shoot("promotion-candidate.png")
        page.promote_to("router")
        page.await_address("/models/router/versions/")
        page.await_text("turnout.approver")
        page.shoot("promotion-approved.png")
    environment = {
        **os.environ,
        "TURNOUT_HOME": str(wired.settings.home),
        "TURNOUT_CONFIG": str(wired.settings.config_path),
        "TURNOUT_MLFLOW_AUTH": "true",
        "MLFLOW_TRACKING_URI": wired.settings.tracking_uri,
        "MLFLOW_TRACKING_USERNAME": "promoter",
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from flows.cli import main; main()", "promote", "orders", "--as-of", wired.now.isoformat(), "--json"],
        env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    report = json.loads(told.stdout[told.stdout.index("{\n") :])
    assert (report["state"], report["approver"]) == ("admitted", "bob")
    live = wired.live("orders")
    assert (live.mode, live.canary) == ("canary", candidate.tags["turnout.digest"])
    with be("promoter"):
        aliases = wired.registry.version("router", approvals(wired, candidate)[-1].number)
    assert aliases.tags["turnout.approver"] == "bob"
    assert "Where it loses" in aliases.description  # what the reviewer read came along


def test_a_reviewer_finds_the_report_one_click_away(candidate: Version, browse: Callable[[str], Any]) -> None:
    with browse("bob") as page:
        page.open(candidate.page)
        page.await_text("report.html")
        link = page._driver.find_element(By.PARTIAL_LINK_TEXT, "report.html")
        page._driver.get(link.get_attribute("href"))
        WebDriverWait(page._driver, WAIT_SECONDS).until(lambda d: d.find_elements(By.TAG_NAME, "iframe"))
        page._driver.switch_to.frame(page._driver.find_element(By.TAG_NAME, "iframe"))
        page.await_text("Load at 100 %", "Value per slice", "Cases")
        page._driver.switch_to.default_content()
        page.shoot("promotion-report.png", of="iframe")
