"""Makes the pictures of the page (docs/serving.md) with the model that is served:

minigpt4 serve --page --port 8000 &
python docs/images/page.py http://127.0.0.1:8000
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
DESK, PHONE = {"width": 1200, "height": 760}, {"width": 390, "height": 844}


def begin(browser: Browser, url: str, photo: str, **options) -> Page:
    """A fresh page with a photo on it."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(180_000)
    page.goto(url)
    page.locator('#model:has-text("…")').wait_for(state="detached")
    page.set_input_files("#files", HERE / photo)
    page.locator("#shown").wait_for()
    return page


def ask(page: Page, text: str, task: str = "", answers: int = 1) -> None:
    page.locator(f'#tasks input[value="{task}"]').check(force=True)
    page.fill("#question", text)
    page.click("#send")
    page.locator(".assistant .time:not(:empty)").nth(answers - 1).wait_for()


def shoot(page: Page, name: str) -> None:
    """The page as it is."""
    page.wait_for_timeout(500)
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(HERE / f"{name}.webp", quality=88, method=6)
    print(name, (HERE / f"{name}.webp").stat().st_size)


def main(url: str) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = begin(browser, url, "cat.jpg", viewport=DESK, color_scheme="light")
        ask(page, "What is in this picture?")
        ask(page, "the cat", "refer", 2)
        shoot(page, "page")
        frame = page.locator("#frame").bounding_box()
        for x, y, do in ((0.28, 0.28, page.mouse.down), (0.78, 0.62, page.mouse.up)):
            page.mouse.move(frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y, steps=4)
            do()
        shoot(page, "page-box")
        page.click("#open-gallery")
        shoot(page, "page-gallery")
        page = begin(browser, url, "camera.jpg", viewport=DESK, color_scheme="dark")
        page.click("#tab-captioner")
        page.fill("#most-rounds", "3")
        page.click("#start")
        page.locator("#captioner-note", has_text="ended:").wait_for()
        shoot(page, "page-captioner")
        page = begin(browser, url, "astronaut.jpg", viewport=PHONE, color_scheme="dark", has_touch=True, is_mobile=True)
        ask(page, "the woman", "refer")
        shoot(page, "page-phone")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
