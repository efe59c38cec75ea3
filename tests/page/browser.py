"""Headless Chromium for the page's test: how it is started, and what the test asks of it."""

import base64
import shutil
import time
from pathlib import Path

try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
except ImportError:
    webdriver = None

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run "
    "--disable-background-networking --disable-sync --disable-component-update "
    "--autoplay-policy=no-user-gesture-required"
)


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str | None:
    """Why no browser can be driven here, if none can."""
    if webdriver is None:
        return "selenium is missing: pip install selenium"
    if not chromium() or not shutil.which("chromedriver"):
        return "chromium or chromedriver is missing: apt-get install chromium chromium-driver"
    return None


class Browser:
    """A browser with one page open."""

    def __init__(self, url: str, axe: Path | None):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium()
        for flag in FLAGS.split():
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(60)
        self.url = url.rstrip("/") + "/"
        self.axe_source = axe.read_text() if axe else None
        self.look()

    def look(self, width: int = 1440, height: int = 900, scheme: str = "light", motion: str = "no-preference"):
        """Sets the window and what the person behind it prefers."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def command(self, name: str, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, draft: str = ""):
        """Opens the page with a draft in its address."""
        self.driver.get("about:blank")
        self.driver.get(self.url + (f"#{draft}" if draft else ""))
        self.wait(lambda: self.all("#prompt, #token"), "the form")

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def ask(self, path: str, method: str = "GET"):
        """What the server answers to the page: its status, its type and its first bytes."""
        script = """const [path, method, done] = arguments;
            fetch(path, { method }).then(async (answer) => {
                const bytes = new Uint8Array(await answer.arrayBuffer());
                done([answer.status, answer.headers.get("Content-Type"), Array.from(bytes.slice(0, 16)), bytes.length]);
            });"""
        return self.driver.execute_async_script(script, path, method)

    def json(self, path: str):
        return self.driver.execute_async_script(
            "const [path, done] = arguments; fetch(path).then((answer) => answer.json()).then(done);", path
        )

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The text of all that is found, as it is seen; units are joined by plain spaces."""
        script = "return [...document.querySelectorAll(arguments[0])].map((it) => it.innerText).join('\\n')"
        return self.run(script, selector).replace("\xa0", " ")

    def fill(self, selector: str, text: str):
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def wait(self, condition, what: str, seconds: float = 30):
        """Waits until the condition holds, and gives what it gave."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if result := condition():
                return result
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {seconds} s; the page says:\n{self.text('#page')[:2000]}")

    def picture(self, path: Path):
        """A picture of the whole page."""
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 5000), "scale": 1}
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def barriers(self):
        """What axe finds of serious and critical barriers; `None` where there is no axe."""
        if not self.axe_source:
            return None
        self.run(self.axe_source)
        script = """const done = arguments[0];
            axe.run(document).then((result) => done(result.violations
                .filter((one) => ["serious", "critical"].includes(one.impact))
                .map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(", ")}`)));"""
        return self.driver.execute_async_script(script)

    def complaints(self):
        """Errors of the console that are not answers of the server."""
        lines = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [line for line in lines if "Failed to load resource" not in line]
