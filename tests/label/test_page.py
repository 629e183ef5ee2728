"""The page in a browser: scrub, mark, undo, load anew, and two windows at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.label.conftest import HOUR
from tests.label.running import Running, labelling
from tests.label.videos import numbered, write_video

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

PATIENCE_S = 60
BROWSERS, DRIVER = ("chromium", "chromium-browser", "google-chrome"), "chromedriver"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page") / "mine"
    write_video(root / "long" / "monday_ir.mkv", [numbered(k) for k in range(200)])
    np.save(root / "long" / "monday_thermal.npy", np.stack([numbered(k, np.uint16) for k in range(180)]))
    write_video(root / "long" / "tuesday_ir.mkv", [numbered(k) for k in range(100)])
    _unlabelled(root)
    (root / "dataset.toml").write_text('labels = ["kick", "wave"]\n[modality.thermal]\nfps = 9\n')
    return root


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    with labelling(folder) as program:
        yield program


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None or shutil.which(DRIVER) is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}, or no {DRIVER}")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,800"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(shutil.which(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """What somebody does with the page, and what is seen of it."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def until(self, holds: Callable[[], object]) -> None:
        WebDriverWait(self.browser, PATIENCE_S, poll_frequency=0.05).until(lambda _: holds())

    def press(self, *keys: str, shift: bool = False, ctrl: bool = False) -> None:
        held = [key for key, is_held in ((Keys.SHIFT, shift), (Keys.CONTROL, ctrl)) if is_held]
        actions = ActionChains(self.browser)
        for key in held:
            actions.key_down(key)
        actions.send_keys(*keys)
        for key in held:
            actions.key_up(key)
        actions.perform()

    def script(self, text: str) -> Any:
        return self.browser.execute_script(f"return {text}")

    def at(self, modality: str = "ir") -> float:
        """Stamp of the frame that a panel shows, s."""
        found = self.script(f"document.querySelector('[data-modality={modality}] canvas')?.dataset.at")
        return -1.0 if found is None else float(found)

    def value(self, modality: str = "ir") -> int:
        """Middle pixel of a panel."""
        canvas = f"document.querySelector('[data-modality={modality}] canvas')"
        return int(self.script(f"{canvas}.getContext('2d').getImageData(30, 20, 1, 1).data[0]"))

    def said(self) -> str:
        return str(self.script("document.getElementById('said').textContent"))

    def pieces(self) -> list[str]:
        return list(self.script("[...document.querySelectorAll('#pieces .segment')].map((bar) => bar.title)"))

    def go(self, key: str, at: float, *, shift: bool = False) -> None:
        self.press(key, shift=shift)
        self.until(lambda: abs(self.at() - at) < 1e-6)

    def find(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)


@pytest.fixture
def page(browser: Any, running: Running, folder: Path) -> Page:
    """As a user finds it who has labelled nothing yet."""
    _unlabelled(folder)
    running.ask("/api/reload", {})
    browser.get("about:blank")
    browser.get(running.address)
    opened = Page(browser)
    opened.until(lambda: opened.at() == 0 and opened.at("thermal") >= 0)
    return opened


def _unlabelled(root: Path) -> None:
    (root / "manifest.csv").write_text("\n".join(HOUR) + "\n")


def labelled(folder: Path) -> list[str]:
    rows = [line.split(",") for line in (folder / "manifest.csv").read_text().splitlines()[1:]]
    return [" ".join((row[1], row[6], row[7])) for row in rows if row[1]]


def test_scrub_mark_undo_and_load_anew(page: Page, folder: Path, running: Running) -> None:
    assert page.value() == 0
    page.go(Keys.ARROW_RIGHT, 1.0, shift=True)
    page.go(Keys.ARROW_RIGHT, 1.1)
    page.go(Keys.ARROW_RIGHT, 1.2)
    page.go(Keys.ARROW_LEFT, 1.1)
    assert page.value() == 11
    page.until(lambda: abs(page.at("thermal") - (0.5 + 5 / 9)) < 1e-6)  # 1.056 s is nearer than 1.167 s

    page.press("i")
    page.until(lambda: page.said().startswith("begins at 0:01.100"))
    page.go(Keys.ARROW_RIGHT, 2.1, shift=True)
    page.press("2")
    page.until(lambda: page.said() == "wave (1.10 s to 2.10 s) added")
    assert labelled(folder) == ["wave 1.1 2.1"]
    page.go(Keys.END, 19.9)
    page.go(Keys.ARROW_LEFT, 18.9, shift=True)
    page.press("i")
    page.go(Keys.END, 19.9)
    page.press("1")
    page.until(lambda: "kick (18.90 s to 19.90 s) added" in page.said())
    assert labelled(folder) == ["wave 1.1 2.1", "kick 18.9 19.901"]

    page.press("z", ctrl=True)
    page.until(lambda: page.said().startswith("undone: kick"))
    assert labelled(folder) == ["wave 1.1 2.1"]
    page.press("z", ctrl=True, shift=True)
    page.until(lambda: page.said().startswith("done again: kick"))
    page.press(Keys.ARROW_UP)
    page.until(lambda: page.at() == pytest.approx(18.9))
    page.press(Keys.DELETE)
    page.until(lambda: page.said().endswith("deleted"))
    assert labelled(folder) == ["wave 1.1 2.1"]

    page.browser.refresh()
    page.until(lambda: page.at() == 0 and page.pieces() == ["wave, 0:01.100 to 0:02.100"])
    for _ in range(4):
        page.press("z", ctrl=True)
    page.until(lambda: page.said() == "nothing to undo: these are the labels as they were read")
    assert labelled(folder) == []
    assert not page.find("message").get_attribute("class")


def test_ends_and_fields_of_a_piece_are_changed(page: Page, folder: Path) -> None:
    page.go(Keys.ARROW_RIGHT, 1.0, shift=True)
    page.press("2")
    page.until(lambda: page.said().startswith("press I where the piece begins"))
    page.press("i")
    page.go(Keys.ARROW_RIGHT, 2.0, shift=True)
    page.press("2")
    page.until(lambda: page.pieces() == ["wave, 0:01.000 to 0:02.000"])
    page.press(Keys.ARROW_UP)
    page.until(lambda: page.find("chosen").text.casefold() == "piece: wave" and page.at() == 1.0)
    page.go(Keys.ARROW_LEFT, 0.9)
    page.press("i")
    page.until(lambda: page.pieces() == ["wave, 0:00.900 to 0:02.000"])
    end = page.browser.find_elements(By.CSS_SELECTOR, ".segment.chosen .edge.end")[0]
    ActionChains(page.browser).click_and_hold(end).move_by_offset(120, 0).release().perform()
    page.until(lambda: page.pieces() != ["wave, 0:00.900 to 0:02.000"])
    moved = float(labelled(folder)[0].split()[2])
    assert 4.0 < moved < 7.0
    assert moved * 10 == pytest.approx(round(moved * 10))  # to a frame
    page.press("1")
    page.until(lambda: page.pieces()[0].startswith("kick, 0:00.900 to"))
    page.find("trial").send_keys("7", Keys.ENTER)
    page.until(lambda: "kick,anna,,7,train" in (folder / "manifest.csv").read_text())
    page.press(Keys.DELETE)
    page.until(lambda: page.pieces() == [])
    assert labelled(folder) == []


def test_an_undo_shows_the_recording_it_is_of(page: Page, folder: Path) -> None:
    page.press("i")
    page.go(Keys.ARROW_RIGHT, 1.0, shift=True)
    page.press("2")
    page.until(lambda: page.pieces() == ["wave, 0:00.000 to 0:01.000"])
    page.press(Keys.PAGE_DOWN)
    page.until(lambda: page.pieces() == [] and "tuesday" in page.said() and page.at() == 0)
    page.press("z", ctrl=True)
    page.until(lambda: page.said() == "undone: wave (0.00 s to 1.00 s) added")
    current = "document.querySelector('#recordings [aria-current=true] b').textContent"
    assert page.script(current) == "long/monday_ir"
    assert labelled(folder) == []


def test_it_plays_and_stops_at_the_end(page: Page) -> None:
    page.press(".", ".", ".")
    page.press(" ")
    page.until(lambda: page.at() == pytest.approx(19.9) and page.find("play").text == "Play")
    assert page.value() == 199


def test_a_second_window_is_told_and_nothing_is_lost(page: Page, folder: Path, running: Running) -> None:
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.browser.get(running.address)
    page.until(lambda: page.at() == 0)
    page.press("i")
    page.go(Keys.ARROW_RIGHT, 1.0, shift=True)
    page.press("1")
    page.until(lambda: labelled(folder) == ["kick 0 1"])
    page.browser.close()
    page.browser.switch_to.window(first)

    page.go(Keys.ARROW_RIGHT, 1.0, shift=True)
    page.press("i")
    page.go(Keys.ARROW_RIGHT, 2.0, shift=True)
    page.press("2")
    page.until(lambda: "another window has changed the labels" in page.said())
    assert labelled(folder) == ["kick 0 1"]
    page.find("newest").click()
    page.until(lambda: page.pieces() == ["kick, 0:00.000 to 0:01.000"])
    page.press("2")  # its marks are still there
    page.until(lambda: labelled(folder) == ["kick 0 1", "wave 1 2"])

    (folder / "manifest.csv").write_text((folder / "manifest.csv").read_text().replace(",wave,", ",kick,"))
    page.press("z", ctrl=True)
    page.until(lambda: "something else has written manifest.csv" in page.said())
    page.find("newest").click()
    page.until(lambda: page.pieces() == ["kick, 0:00.000 to 0:01.000", "kick, 0:01.000 to 0:02.000"])


def test_the_page_raises_no_error_and_breaks_no_rule_of_its_policy(page: Page) -> None:
    said = [entry["message"] for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [one for one in said if "409" not in one and "400" not in one] == []
    assert page.script("document.documentElement.scrollWidth <= innerWidth") is True


def test_without_its_token_it_says_what_is_missing(browser: Any, running: Running) -> None:
    browser.get("about:blank")
    browser.get(running.host + "/")
    page = Page(browser)
    page.until(lambda: "lacks its token" in page.said())
