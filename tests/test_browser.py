"""What a person sees in a browser: the report and TensorBoard over a finished sweep. Needs Chromium and its driver."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytestmark = pytest.mark.browser
selenium = pytest.importorskip("selenium", reason="needs the selenium package: make test-browser installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("needs chromium and chromedriver from the system's packages", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("browser") / "sweep"
    settings = ["train.steps=200", "train.eval_every=100", "evaluation.iw_samples=2", "model=mlp_vae,linear_vae"]
    command = [sys.executable, str(ROOT / "run.py"), "-m", *settings, "train.lr=1e-3", f"hydra.sweep.dir={directory}"]
    done = subprocess.run(command, cwd=directory.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in [*QUIET.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def tensorboard(sweep: Path) -> Iterator[str]:
    """By the very command of `make board`, over the sweep and a single run, on a free port."""
    place = sweep.parent
    (place / "multirun_sweeps").mkdir()
    (place / "outputs").mkdir()
    os.symlink(sweep, place / "multirun_sweeps" / "sweep")
    recipe = re.findall(r"^board:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = recipe.replace("$(BIN)/tensorboard", f"exec {sys.executable} -m tensorboard.main --port {port}")
    script = "\n".join(line.strip() for line in start.splitlines())
    server = subprocess.Popen(["sh", "-ec", script], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"{url}data/runs", timeout=5) as answer:
                if len(json.load(answer)) == 2:
                    break
        except OSError:
            pass
        time.sleep(0.5)
    yield url
    server.terminate()
    server.wait(20)


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("width", [1300, 390])
def test_report(sweep: Path, browser: Any, width: int) -> None:
    browser.set_window_size(width, 900)
    browser.get(f"file://{sweep / 'report.html'}")
    rows = browser.find_elements(By.CSS_SELECTOR, "#summary tbody tr")
    assert [row.text.split()[0] for row in rows] == ["mlp_vae", "linear_vae"]
    assert all("alive" in row.text or "collapsed" in row.text for row in rows)
    sections = [part.get_attribute("id") for part in browser.find_elements(By.CSS_SELECTOR, "header, section")]
    first = ["question", "pictures", "findings", "curves", "measures"]
    assert sections[: len(first)] == first
    images = browser.find_elements(By.TAG_NAME, "img")
    assert len(images) >= 6
    for image in images:
        assert browser.execute_script("return arguments[0].complete && arguments[0].naturalWidth > 0", image)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), (
        "page scrolls sideways"
    )
    assert errors(browser) == []


@pytest.mark.parametrize("width", [1300, 390])
def test_what_is_drawn_stays_in_its_box(sweep: Path, browser: Any, width: int) -> None:
    browser.set_window_size(width, 900)
    browser.get(f"file://{sweep / 'report.html'}")
    outside = browser.execute_script("""
        const found = [];
        for (const svg of document.querySelectorAll(".panel svg")) {
            const box = svg.getBoundingClientRect();
            for (const text of svg.querySelectorAll("text")) {
                const own = text.getBoundingClientRect();
                if (own.left < box.left - 2 || own.right > box.right + 2 || own.top < box.top - 2
                    || own.bottom > box.bottom + 2) found.push(text.textContent);
            }
        }
        return found;
    """)
    assert outside == []
    panels = browser.execute_script(
        "return [...document.querySelectorAll('#curves .panel')].map(panel => panel.getBoundingClientRect().left)"
    )
    assert (len(set(panels)) == 1) == (width == 390), "panels stack on a phone, and only there"


def test_the_page_answers(sweep: Path, browser: Any) -> None:
    """The table sorts, films move together, the glossary unfolds, what is pointed at lights up."""
    browser.set_window_size(1300, 900)
    browser.get(f"file://{sweep / 'report.html'}")
    head = browser.find_element(By.CSS_SELECTOR, "#summary th")
    for ordered in (["linear_vae", "mlp_vae"], ["mlp_vae", "linear_vae"]):
        browser.execute_script("arguments[0].click()", head)
        rows = browser.find_elements(By.CSS_SELECTOR, "#summary tbody tr")
        assert [row.text.split()[0] for row in rows] == ordered
    places = "return [...document.querySelectorAll('.film')].map(film => film.style.backgroundPositionY)"
    move = "const m = document.getElementById('moment'); m.value = arguments[0]; m.dispatchEvent(new Event('input'))"
    browser.execute_script(move, 0)
    assert browser.execute_script(places) == ["0%", "0%"]
    browser.execute_script(move, 1)
    assert browser.execute_script(places) == ["100%", "100%"]
    words = browser.find_element(By.ID, "words")
    assert not words.find_element(By.TAG_NAME, "dt").is_displayed()
    browser.execute_script("arguments[0].querySelector('summary').click()", words)
    assert words.find_element(By.TAG_NAME, "dt").is_displayed()
    line = browser.find_element(By.CSS_SELECTOR, "#curves .legend span")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", line)
    ActionChains(browser).move_to_element(line).perform()
    assert browser.execute_script("return document.body.classList.contains('lit')")
    assert errors(browser) == []


@pytest.mark.parametrize(("width", "height"), [(1300, 700), (1300, 900), (390, 844)])
def test_the_bar_of_the_films_lies_over_no_name(sweep: Path, browser: Any, width: int, height: int) -> None:
    """It is at hand as soon as half of a film is, and before that covers nothing, wherever the page is scrolled to."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(f"file://{sweep / 'report.html'}")
        film = "const film = document.querySelector('.film').getBoundingClientRect();"
        half = browser.execute_script(f"{film} return film.top + scrollY + film.height / 2")
        for top in range(0, int(half) - height, 100):
            browser.execute_script("scrollTo(0, arguments[0])", top)
            browser.execute_async_script(SETTLED)
            assert browser.execute_script(COVERED) == [], top
        browser.execute_script("document.querySelector('.film').scrollIntoView({block: 'center'})")
        browser.execute_async_script(SETTLED)
        bar = "const bar = document.querySelector('.player').getBoundingClientRect();"
        assert browser.execute_script(f"{bar} return bar.top >= 0 && bar.bottom <= innerHeight")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_bar_is_at_hand_in_a_film_that_is_higher_than_the_view(sweep: Path, browser: Any) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(f"file://{sweep / 'report.html'}")
        browser.execute_script("document.querySelector('.film').style.height = '3000px'")
        browser.execute_script("document.querySelector('.film').scrollIntoView({block: 'center'})")
        browser.execute_async_script(SETTLED)
        bar = "const bar = document.querySelector('.player').getBoundingClientRect();"
        assert browser.execute_script(f"{bar} return bar.top >= 0 && bar.bottom <= innerHeight")
        browser.execute_script("scrollTo(0, 0)")
        browser.execute_async_script(SETTLED)
        assert browser.execute_script(COVERED) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# An observer is told of what is seen once a frame is drawn.
SETTLED = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 20)))"
COVERED = """
    const bar = document.querySelector(".player").getBoundingClientRect();
    return [...document.querySelectorAll("h2, .run .head")].filter(head => {
        const own = head.getBoundingClientRect();
        return own.bottom > bar.top && own.top < bar.bottom;
    }).map(head => head.textContent);
"""

# TensorBoard keeps its text in shadow trees, where the page's own innerText does not reach.
TEXT = """
    const parts = [];
    (function walk(root) {
        for (const node of root.childNodes) {
            if (node.nodeType === Node.TEXT_NODE) parts.push(node.textContent.trim());
            if (node.shadowRoot) walk(node.shadowRoot);
            walk(node);
        }
    })(document);
    return parts.filter(part => part).join("\\n");
"""


# The frames of a page, in shadow trees too.
FRAMES = """
    const found = [];
    (function walk(root) {
        for (const node of root.querySelectorAll("*")) {
            if (node.tagName === "IFRAME") found.push(node);
            if (node.shadowRoot) walk(node.shadowRoot);
        }
    })(document);
    return found;
"""


def shown(browser: Any, url: str, wanted: str) -> str:
    """The text of a TensorBoard page, once `wanted` is in it."""
    browser.set_window_size(1500, 1200)
    browser.get("about:blank")
    browser.get(url)
    waiting = WebDriverWait(browser, 60)
    waiting.until(lambda driver: wanted in driver.execute_script(TEXT), f"{wanted!r} never appeared")
    return str(browser.execute_script(TEXT))


def test_custom_scalars_are_in_order(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#custom_scalars", "5. Predicted")
    groups = ["1. Training", "2. Test images", "3. The range of the code", "4. Does the code", "5. Predicted"]
    places = [page.index(group) for group in groups]
    assert places == sorted(places)
    for chart in ("sigma: minimum, mean, maximum", "highest mu", "lowest sigma"):
        assert chart in page


def test_images(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#images", "reconstructions")
    for tag in ("kl_per_dimension", "prior_samples", "spectrum", "traversal", "training"):
        assert tag in page


def test_text_has_the_verdict_and_its_reasons(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#text", "answer")
    assert "KL is" in page


def test_hparams_has_a_row_a_run_and_the_verdict_first(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#hparams", "0 verdict")
    assert page.index("0 verdict") < page.index("1 model") < page.index("3 lr")
    for model in ("mlp_vae", "linear_vae"):
        assert model in page


def test_the_projector_has_the_codes(tensorboard: str, browser: Any) -> None:
    with urllib.request.urlopen(f"{tensorboard}data/plugin/projector/runs", timeout=20) as answer:
        assert sorted(json.load(answer)) == ["sweeps/sweep/0_mlp_vae", "sweeps/sweep/1_linear_vae"]
    browser.get("about:blank")
    browser.get(f"{tensorboard}#projector")
    try:
        for _ in range(2):  # its page is a frame in a frame
            frames = WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(FRAMES))
            browser.switch_to.frame(frames[0])
        waiting = WebDriverWait(browser, 60)
        waiting.until(lambda driver: "Points:" in driver.execute_script(TEXT), "no codes in the projector")
    finally:
        browser.switch_to.default_content()
