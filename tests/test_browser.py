"""What a person sees in a browser: the report and TensorBoard over a finished sweep. Needs Chromium and its driver."""

import os
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--logdir",
        str(sweep),
    ]
    server = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{url}data/runs", timeout=5).close()
            break
        except OSError:
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
    assert [row.text.split()[0] for row in rows] == ["mlp_vae_constant", "linear_vae_constant"]
    assert all("alive" in row.text or "collapsed" in row.text for row in rows)
    images = browser.find_elements(By.TAG_NAME, "img")
    assert len(images) > 8
    for image in images:
        assert browser.execute_script("return arguments[0].complete && arguments[0].naturalWidth > 0", image)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), (
        "page scrolls sideways"
    )
    assert errors(browser) == []


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


def shown(browser: Any, url: str, wanted: str) -> str:
    """The text of a TensorBoard page, once `wanted` is in it."""
    browser.set_window_size(1500, 1200)
    browser.get("about:blank")
    browser.get(url)
    waiting = WebDriverWait(browser, 60)
    waiting.until(lambda driver: wanted in driver.execute_script(TEXT), f"{wanted!r} never appeared")
    return str(browser.execute_script(TEXT))


def test_custom_scalars_bands(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#custom_scalars", "sigma: least, mean, greatest")
    assert "mu: least, mean, greatest" in page
    assert "MSE per pixel" in page


def test_images(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#images", "reconstructions")
    for tag in ("kl_per_dimension", "prior_samples", "spectrum", "traversal", "training"):
        assert tag in page


def test_hparams_has_a_row_a_run(tensorboard: str, browser: Any) -> None:
    page = shown(browser, f"{tensorboard}#hparams", "1_linear_vae_constant_seed0")
    assert "0_mlp_vae_constant_seed0" in page
