#!/usr/bin/env python3
"""Uses the web page of a running server as people do, in headless Chromium.

    vidfit serve &
    tests/page/test_page.py http://127.0.0.1:8080 [--token T] [--program vidfit] [--axe axe.min.js] [--pictures DIR]

With --program, it starts servers of its own where a test has to stop one, or to have one with a token;
without an address, all tests have one of those.
Needs selenium, chromium and chromedriver, and skips everything with a reason where they are missing.
axe.min.js is in the npm package axe-core (`npm pack axe-core`); without it, barriers are not looked for.
The server should have the demo model as its default, and nobody else using it.
"""

import argparse
import struct
import sys
import tempfile
import time
import unittest
import zlib
from pathlib import Path

from browser import Browser, missing
from server import Server

ARGUMENTS = argparse.Namespace(url=None, token=None, program=None, axe=None, pictures=None)
# A model of a few thousand weights that starts from images.
IMAGE_MODEL = Path(__file__).parents[1] / "reference/fixtures/checkpoints/5b-i2v"
SHORT = "model=demo&num_inference_steps=20"
# Long enough to look at while it runs, on any machine.
LONG = "model=demo&num_inference_steps=1000"


def png(width: int, height: int) -> bytes:
    """A picture with a slope of red."""
    rows = b"".join(b"\0" + b"".join(bytes((x * 255 // width, 60, 90)) for x in range(width)) for _ in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not ARGUMENTS.url and not ARGUMENTS.program:
            raise unittest.SkipTest("no server: give its address, or the program")
        if reason := missing():
            raise unittest.SkipTest(reason)
        url = ARGUMENTS.url
        if not url:
            server = Server(ARGUMENTS.program, "--models", "demo", "--models", str(IMAGE_MODEL))
            cls.addClassCleanup(server.close)
            url = server.url.replace("localhost", "127.0.0.1")
        cls.browser = Browser(url, ARGUMENTS.axe)
        cls.addClassCleanup(cls.browser.driver.quit)
        cls.browser.open()
        if cls.browser.all("#token"):
            cls.browser.fill("#token", f"{ARGUMENTS.token or ''}\n")
            cls.browser.wait(lambda: cls.browser.all("#prompt"), "the form, once the token was given")

    def setUp(self):
        self.browser.look()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def tearDown(self):
        self.assertEqual(self.browser.complaints(), [])

    def tile(self, prompt: str) -> str:
        """The selector of the tile of the video of that prompt, once there is one."""
        script = """return [...document.querySelectorAll('.tile')]
            .find((tile) => tile.querySelector('.tile-prompt')?.textContent === arguments[0])?.dataset.id"""
        name = self.browser.wait(lambda: self.browser.run(script, prompt), f"the tile of {prompt}", 180)
        return f'.tile[data-id="{name}"]'

    def start(self, prompt: str, draft: str) -> None:
        from selenium.webdriver.common.keys import Keys

        self.browser.open(draft)
        self.browser.one("#prompt").send_keys(prompt, Keys.CONTROL, Keys.ENTER)

    def own_server(self, *options: str) -> Server:
        """A server that the test may do anything to; the browser goes there until the test's end."""
        if not ARGUMENTS.program:
            self.skipTest("it needs a server of its own: give --program")
        server = Server(ARGUMENTS.program, *options)
        self.addCleanup(server.close)
        self.addCleanup(setattr, self.browser, "url", self.browser.url)
        self.browser.url = server.url
        # No page of a server that is about to go is left open.
        self.addCleanup(self.browser.driver.get, "about:blank")
        return server

    def stub(self, path: str, status: int, answer: bytes, kind: str = "application/json") -> None:
        """From here on, the page hears this of this path."""
        script = """const [path, status, answer, kind] = arguments, real = window.fetch;
            const response = () => new Response(new Uint8Array(answer), { status, headers: { "Content-Type": kind } });
            window.fetch = (to, options) => String(to).includes(path) ? Promise.resolve(response()) : real(to, options);"""
        self.browser.run(script, path, status, list(answer), kind)

    def drop(self, selector: str, name: str, kind: str, text: str = "something") -> bool:
        """Drops a file there, and says whether the page took it: the browser would open it otherwise."""
        script = """const [selector, name, kind, text] = arguments, dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([text], name, { type: kind }));
            const it = document.querySelector(selector), options = { dataTransfer, bubbles: true, cancelable: true };
            return !it.dispatchEvent(new DragEvent("dragover", options)) && !it.dispatchEvent(new DragEvent("drop", options));"""
        return self.browser.run(script, selector, name, kind, text)

    def kept(self, task: str) -> bool:
        """Whether the browser keeps a file that such a job starts from."""
        script = """const [task, done] = arguments, opening = indexedDB.open("vidfit");
            opening.onsuccess = () => {
                const getting = opening.result.transaction("sources").objectStore("sources").get(task);
                getting.onsuccess = () => { opening.result.close(); done(Boolean(getting.result)); };
            };"""
        return self.browser.driver.execute_async_script(script, task)

    def focus(self) -> str:
        return self.browser.run("return document.activeElement.id || document.activeElement.tagName")

    def running(self, prompt: str):
        """How much of the job is done, in percent; `None` if it does not run."""
        script = """return [...document.querySelectorAll('[role=progressbar]')]
            .find((bar) => bar.getAttribute('aria-label').endsWith(arguments[0]))?.getAttribute('aria-valuenow')"""
        percent = self.browser.run(script, prompt)
        return None if percent is None else int(percent)

    def test_the_plan_follows_the_form(self):
        browser = self.browser
        browser.open(SHORT)
        browser.wait(lambda: "Fits" in browser.text("#plan"), "a plan that fits")
        self.assertRegex(browser.text("#plan .figures"), r"^\d+(\.\d)? [KMG]B of your \d+\.\d GB, about \d+ (s|min|h)$")
        browser.one("#plan summary").click()
        before = browser.text("#plan table")
        browser.fill("#num_frames", "9")
        browser.wait(lambda: "9 frames of 64×64" in browser.text("#plan .facts"), "the plan of 9 frames")
        self.assertNotEqual(browser.text("#plan table"), before)
        self.assertIn("num_frames=9", browser.wait(lambda: browser.driver.current_url if "num_frames=9" in browser.driver.current_url else None, "the draft in the address"))

    def test_errors_stand_beside_their_field(self):
        browser = self.browser
        browser.open("model=demo&num_inference_steps=0")
        browser.wait(lambda: "1000" in browser.text("#num_inference_steps-error"), "the server's words")
        self.assertEqual(browser.one("#num_inference_steps").get_attribute("aria-invalid"), "true")
        browser.one("#start").click()
        browser.wait(lambda: browser.text("#prompt-error"), "a word on the missing prompt")
        browser.wait(lambda: browser.run("return document.activeElement.id") == "prompt", "the focus on the prompt")

    def test_an_error_without_a_field_stands_beside_the_button(self):
        browser = self.browser
        browser.open(SHORT)
        browser.wait(lambda: "Fits" in browser.text("#plan"), "a plan")
        self.stub("/v1/videos", 503, b'{"error": {"message": "The disk is full.", "param": null, "code": "disk_full"}}')
        browser.fill("#prompt", "never made")
        browser.one("#start").click()
        browser.wait(lambda: "The disk is full." in browser.text(".actions .error"), "the server's words")
        browser.wait(lambda: self.focus() == "start", "the focus on the button")

    def test_an_empty_file_is_no_source(self):
        browser, file = self.browser, self.folder / "empty.mp4"
        file.write_bytes(b"")
        browser.open("task=v2v&" + SHORT)
        if not browser.all("#tab-v2v"):
            self.skipTest("the server has no video-to-video model")
        browser.one("#source").send_keys(str(file))
        browser.wait(lambda: "empty.mp4 is empty" in browser.text("#source-error"), "a word on the empty file")
        self.assertEqual(browser.all(".preview"), [])

    def test_files_may_be_dropped_anywhere(self):
        browser = self.browser
        browser.open("task=t2v&" + SHORT)
        self.assertTrue(self.drop("#gallery-title", "notes.txt", "text/plain"))
        browser.wait(lambda: "cannot start from" in browser.text(".actions .error"), "a word on a file of no use")
        if not browser.all("#tab-v2v"):
            self.skipTest("the server has no video-to-video model")
        # A video whose type the system does not know.
        self.assertTrue(self.drop("#prompt", "holiday.mp4", ""))
        browser.wait(lambda: "holiday.mp4" in browser.text(".file-name"), "the video in the form")
        self.assertEqual(browser.one("#tab-v2v").get_attribute("aria-selected"), "true")
        self.assertEqual(browser.text(".error"), "")
        next(button for button in browser.all(".source-field button") if button.text == "Remove").click()
        browser.wait(lambda: not browser.all(".preview"), "no video")

    def test_the_page_finds_its_way_back_to_the_server(self):
        server, browser = self.own_server(), self.browser
        for prompt in ("the first of two", "the second of two"):
            self.start(prompt, LONG)
            browser.wait(lambda: prompt in browser.text(".job-prompt"), "the job")
        server.stop()
        browser.fill("#num_frames", "9")
        browser.wait(lambda: "does not answer" in browser.text("#plan"), "a word on the missing plan")
        browser.wait(lambda: "does not answer" in browser.text(".line"), "a word on the line")
        server.start()
        browser.wait(lambda: "Fits" in browser.text("#plan"), "the plan, once the server is back")
        browser.wait(lambda: browser.text(".line") == "", "a line that is live again")
        self.assertIn("the second of two", browser.text(".job-prompt"))
        browser.wait(lambda: browser.all(".job.in_progress"), "the job that goes on")
        server.stop()
        server.start("another")
        browser.wait(lambda: not browser.all(".job"), "the end of jobs that nobody knows any more")
        self.start("a job of the other server", SHORT)
        self.tile("a job of the other server")

    def test_the_token_is_asked_for_until_it_is_given(self):
        from selenium.webdriver.common.keys import Keys

        self.own_server("--token", "the-token-of-the-test")
        browser = self.browser
        browser.open()
        browser.wait(lambda: self.focus() == "token", "the focus on the token")
        for _ in range(3):
            browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
            time.sleep(0.2)
        browser.wait(lambda: browser.all("dialog[open] #token"), "the question, still")
        browser.fill("#token", "the-token-of-the-test\n")
        prompt = "a secret of mine"
        browser.wait(lambda: browser.all("#prompt"), "the form")
        self.start(prompt, "model=demo&num_inference_steps=2")
        self.tile(prompt)
        browser.one("#tab-v2v").click()
        self.drop("#source", "mine.mp4", "video/mp4")
        browser.wait(lambda: "mine.mp4" in browser.text(".file-name"), "the video to start from")
        next(button for button in browser.all(".head button") if button.text == "Sign out").click()
        browser.wait(lambda: browser.all("dialog[open] #token"), "the question again")
        self.assertNotIn(prompt, browser.run("return document.documentElement.outerHTML + location.hash + JSON.stringify(localStorage)"))
        browser.fill("#token", "the-token-of-the-test\n")
        browser.wait(lambda: browser.all("#prompt"), "the form again")
        self.assertEqual(browser.one("#prompt").get_property("value"), "")
        self.tile(prompt)
        browser.wait(lambda: not self.kept("v2v"), "the end of what was kept")
        browser.open("task=v2v")
        time.sleep(0.5)
        self.assertNotIn("mine.mp4", browser.text(".composer"))

    def test_a_video_is_made_and_played(self):
        browser, prompt = self.browser, f"a red ball moving right, {time.time():.0f}"
        self.start(prompt, "model=demo&num_inference_steps=150&seed=7")
        seen = set()

        def tile():
            seen.add(self.running(prompt))
            return any(prompt in text.get_attribute("title") for text in browser.all(".tile-prompt"))

        browser.wait(tile, "the video", 180)
        self.assertGreater(len(seen - {None}), 2, "progress was seen to move")
        selector = self.tile(prompt)
        play = f"const v = document.querySelector('{selector} video'); return v.readyState >= 2 && v.currentTime"
        first = browser.wait(lambda: browser.run(play), "a playing video")
        browser.wait(lambda: browser.run(play) not in (False, first), "a video that goes on")
        shape = f"const v = document.querySelector('{selector} video'); return [v.videoWidth, v.videoHeight, v.loop, v.muted]"
        self.assertEqual(browser.run(shape), [64, 64, True, True])
        for kind, magic in (("MP4", b"ftyp"), ("GIF", b"GIF89a")):
            link = next(link for link in browser.all(f"{selector} a") if kind in link.text)
            status, _, head, _ = browser.ask(link.get_attribute("href"))
            self.assertEqual(status, 200)
            self.assertIn(magic, bytes(head))
        self.look_at_it(selector, prompt)

    def look_at_it(self, selector: str, prompt: str):
        """Its dialog, its settings in the form, and its deletion."""
        from selenium.webdriver.common.keys import Keys

        browser = self.browser
        browser.one(f"{selector} .open").send_keys(Keys.ENTER)
        browser.wait(lambda: browser.all("dialog[open] video"), "the dialog")
        self.assertIn("Memory planned", browser.text("dialog"))
        self.assertIn(browser.barriers(), (None, []))
        browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        browser.wait(lambda: not browser.all("dialog"), "the dialog's end")
        browser.open()
        browser.fill("#prompt", "something else")
        next(b for b in browser.all(f"{self.tile(prompt)} button") if "Reuse" in b.text).click()
        browser.wait(lambda: browser.one("#prompt").get_property("value") == prompt, "the prompt in the form")
        values = [browser.one(name).get_property("value") for name in ("#seed", "#num_inference_steps")]
        self.assertEqual(values, ["7", "150"])
        browser.one(f'{selector} [title="Delete"]').click()
        browser.wait(lambda: browser.all("dialog .danger"), "the question")
        browser.one("dialog .danger").click()
        browser.wait(lambda: not browser.all(selector), "the video's end")

    def test_a_job_is_found_again_after_a_reload_and_cancelled(self):
        browser, prompt = self.browser, f"a long blue star, {time.time():.0f}"
        self.start(prompt, LONG)
        before = browser.wait(lambda: self.running(prompt), "progress", 60)
        browser.driver.refresh()
        after = browser.wait(lambda: self.running(prompt), "the job after a reload")
        self.assertGreaterEqual(after, before)
        browser.wait(lambda: (self.running(prompt) or 0) > after, "progress after a reload", 60)
        self.assertEqual(browser.one("#prompt").get_property("value"), prompt)
        browser.one(".job.in_progress button").click()
        browser.wait(lambda: browser.all("dialog .danger"), "the question")
        self.assertIn("would be lost", browser.text("dialog"))
        browser.one("dialog .danger").click()
        selector = self.tile(prompt)
        self.assertIn("Cancelled", browser.text(f"{selector} .state"))
        self.assertEqual(self.focus(), "gallery-title", "the focus did not go with the job")
        browser.one(f'{selector} [title="Delete"]').click()
        browser.wait(lambda: not browser.all(selector), "the job's end")

    def test_what_waits_is_cancelled_without_a_question(self):
        browser, stamp = self.browser, f"{time.time():.0f}"
        self.start(f"first, {stamp}", LONG)
        browser.wait(lambda: self.running(f"first, {stamp}") is not None, "the first job")
        self.start(f"second, {stamp}", LONG)
        browser.wait(lambda: "Next in the queue" in browser.text(".job.queued"), "the second job's place")
        browser.one(".job.queued button").click()
        self.assertIn("Cancelled", browser.text(f"{self.tile(f'second, {stamp}')} .state"))
        self.assertEqual(browser.all("dialog"), [])
        self.assertEqual(self.focus(), "queue-title", "the focus did not go with the job")
        for job in browser.json("/v1/videos")["data"]:
            if stamp in job["prompt"]:
                browser.ask(f"/v1/videos/{job['id']}", "DELETE")
        browser.wait(lambda: not browser.all(".job"), "an empty queue")

    def test_an_image_is_uploaded(self):
        browser, file = self.browser, self.folder / "slope.png"
        file.write_bytes(png(96, 64))
        browser.open()
        if not browser.all("#tab-i2v"):
            self.skipTest("the server has no image-to-video model")
        browser.open("task=i2v&num_inference_steps=2&num_frames=9")
        browser.one("#source").send_keys(str(file))
        browser.wait(lambda: browser.run("return document.querySelector('img.preview')?.naturalWidth") == 96, "the preview")
        browser.wait(lambda: self.kept("i2v"), "the image in the browser's storage")
        browser.driver.refresh()
        browser.wait(lambda: browser.all("img.preview"), "the preview after a reload")
        prompt = f"it comes alive, {time.time():.0f}"
        browser.fill("#prompt", prompt)
        browser.one("#start").click()
        browser.wait(lambda: prompt in browser.text(".job-prompt, .tile-prompt") or browser.all(".error"), "the job")
        self.assertEqual(browser.text(".error"), "")
        selector = self.tile(prompt)
        other = self.folder / "other.png"
        other.write_bytes(png(32, 32))
        browser.one("#source").send_keys(str(other))
        browser.wait(lambda: "other.png" in browser.text(".file-name"), "another image")
        self.reuse_it(selector, "image", "input.png")
        self.stub("variant=input", 200, png(48, 40), "image/png")
        next(button for button in browser.all(f"{selector} button") if "Reuse" in button.text).click()
        browser.wait(lambda: browser.run("return document.querySelector('img.preview')?.naturalWidth") == 48, "what the server gives back")
        for job in browser.json("/v1/videos")["data"]:
            if job["prompt"] == prompt:
                self.assertEqual(job["task"], "i2v")
                browser.ask(f"/v1/videos/{job['id']}", "DELETE")

    def test_a_video_is_uploaded(self):
        browser = self.browser
        browser.open("task=v2v&" + SHORT)
        if not browser.all("#tab-v2v"):
            self.skipTest("the server has no video-to-video model")
        wrong = self.folder / "notes.txt"
        wrong.write_text("no video")
        browser.one("#source").send_keys(str(wrong))
        browser.wait(lambda: "not a video" in browser.text("#source-error"), "a word on a wrong file")
        source = f"a green square falling, {time.time():.0f}"
        self.start(source, SHORT)
        made = self.tile(source)
        script = """const [path, done] = arguments;
            fetch(path).then((answer) => answer.arrayBuffer()).then((bytes) => done(Array.from(new Uint8Array(bytes))));"""
        link = browser.one(f"{made} a").get_attribute("href")
        file = self.folder / "green.mp4"
        file.write_bytes(bytes(browser.driver.execute_async_script(script, link)))
        browser.open("task=v2v&strength=0.6&" + SHORT)
        browser.one("#source").send_keys(str(file))
        browser.wait(lambda: browser.run("return document.querySelector('video.preview')?.videoWidth") == 64, "the preview")
        prompt = f"a red square falling, {time.time():.0f}"
        browser.fill("#prompt", prompt)
        browser.one("#start").click()
        selector = self.tile(prompt)
        self.assertIn("completed", browser.one(selector).get_attribute("class"))
        self.reuse_it(selector, "video", "input.mp4")
        self.assertEqual(browser.one("#strength").get_property("value"), "0.6")

    def reuse_it(self, selector: str, noun: str, name: str):
        """With its source where the server gives it, else without any: another would make another video."""
        browser = self.browser
        source = f"/v1/videos/{browser.one(selector).get_attribute('data-id')}/content?variant=input"
        press = lambda: next(b for b in browser.all(f"{selector} button") if "Reuse" in b.text).click()
        browser.one("#tab-t2v").click()
        if browser.ask(source)[0] == 200:
            press()
            browser.wait(lambda: name in browser.text(".file-name"), "its source in the form")
            browser.one("#tab-t2v").click()
        self.stub("variant=input", 404, b"{}")
        press()
        browser.wait(lambda: f"does not give back the {noun}" in browser.text(".source-field"), "a word on the missing source")
        self.assertEqual(browser.all(".preview"), [])

    def test_the_keyboard_reaches_the_tabs(self):
        from selenium.webdriver.common.keys import Keys

        browser = self.browser
        browser.open("task=t2v")
        tabs = [tab.get_attribute("id") for tab in browser.all("[role=tab]")]
        focused = lambda: browser.run("return [document.activeElement.id, document.activeElement.ariaSelected]")
        browser.one("#tab-t2v").click()
        for key, expected in ((Keys.ARROW_LEFT, tabs[-1]), (Keys.HOME, tabs[0]), (Keys.END, tabs[-1]), (Keys.ARROW_RIGHT, tabs[0])):
            browser.driver.switch_to.active_element.send_keys(key)
            browser.wait(lambda: focused() == [expected, "true"], f"{expected} by {key!r}")
        outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        self.assertNotEqual(outline, "none", "the focus can be seen")

    def test_nothing_moves_for_who_wants_it_still(self):
        browser = self.browser
        self.start("a small yellow ball", SHORT)
        selector = self.tile("a small yellow ball")
        browser.look(motion="reduce")
        browser.open()
        browser.wait(lambda: browser.run(f"return document.querySelector('{selector} video')?.poster"), "the still")
        time.sleep(0.5)
        paused = f"return document.querySelector('{selector} video').paused"
        self.assertTrue(browser.run(paused))
        browser.one(f"{selector} .toggle").click()
        browser.wait(lambda: not browser.run(paused), "the video, once it was asked for")

    def test_it_looks_right_on_a_phone_and_on_a_desk(self):
        browser = self.browser
        self.start("a small yellow ball", SHORT)
        self.tile("a small yellow ball")
        for width, height in ((360, 780), (1440, 900)):
            for scheme in ("light", "dark"):
                browser.look(width, height, scheme)
                browser.open(SHORT)
                browser.wait(lambda: "Fits" in browser.text("#plan"), "a plan")
                browser.wait(lambda: browser.all(".tile"), "the gallery")
                time.sleep(0.6)
                self.assertLessEqual(browser.run("return document.documentElement.scrollWidth"), width)
                if ARGUMENTS.pictures:
                    browser.picture(ARGUMENTS.pictures / f"page-{width}-{scheme}.png")
                self.assertIn(browser.barriers(), (None, []))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--token")
    parser.add_argument("--program", type=Path, help="vidfit, for servers of the test's own")
    parser.add_argument("--axe", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("-k", action="append", default=[], help="only the tests whose names hold this")
    parser.parse_args(namespace=ARGUMENTS)
    if ARGUMENTS.pictures:
        ARGUMENTS.pictures.mkdir(parents=True, exist_ok=True)
    if not ARGUMENTS.axe:
        print("no --axe: barriers are not looked for", file=sys.stderr)
    words = [sys.argv[0], "-v", *(word for name in ARGUMENTS.k for word in ("-k", name))]
    return not unittest.main(argv=words, exit=False).result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
