"""The page in a real browser: headless Chromium by way of Selenium."""

import io
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from serving import make_video

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="no browser: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    downloads = tmp_path_factory.mktemp("downloads")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.downloads = downloads
    yield driver
    driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, driver, server):
        self.driver, self.server = driver, server

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def wait(self, condition, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.05)
        raise AssertionError(
            f"never came; the page says: {self.driver.find_element(By.TAG_NAME, 'main').text}"
        )

    def open(self, fragment=""):
        self.driver.get("about:blank")
        self.driver.get(f"{self.server.address}/{fragment}")
        self.wait(lambda: len(self.find("samples").find_elements(By.TAG_NAME, "button")) == 3)

    def look(self, width=1200, height=900, dark=False):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def upload(self, path):
        self.find("file").send_keys(str(path))

    def status(self):
        return self.find("status").text

    def job(self):
        return self.driver.execute_script("return location.hash.slice(1)")

    def shown(self):
        """The canvas, once the frame of the slider is drawn: (h, w, 4)."""
        self.wait(
            lambda: (
                self.find("canvas").get_attribute("data-frame") == self.find("scrub").get_property("value")
            )
        )
        code = (
            "const [c] = arguments; return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        canvas = self.find("canvas")
        size = int(canvas.get_attribute("height")), int(canvas.get_attribute("width"))
        return np.array(self.driver.execute_script(code, canvas), dtype=np.uint8).reshape(*size, 4)

    def choose(self, view):
        self.driver.find_element(By.CSS_SELECTOR, f"input[value='{view}']").click()
        return self.shown()

    def type(self, *keys):
        self.driver.find_element(By.TAG_NAME, "body").send_keys(*keys)


@pytest.fixture
def page(chromium, server):
    page = Page(chromium, server)
    page.look()
    page.open()
    return page


@pytest.fixture(scope="module")
def finished(server, video):
    """Id of a job that is done."""
    _, job = server.ask("/jobs?name=walk.mp4", video.read_bytes())
    assert server.wait(job["id"], "done", "failed")["state"] == "done"
    return job["id"]


def complaints(driver):
    return [
        entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


def test_a_video_from_the_drop_to_the_download(page, video):
    complaints(page.driver)
    page.upload(video)
    page.wait(lambda: page.job())
    assert page.find("job-title").text == "walk.mp4"
    page.wait(lambda: page.status() == "Done: 24 frames, 96 x 64")
    assert page.find("cancel").is_displayed() is False
    links = {link.text: link for link in page.find("links").find_elements(By.TAG_NAME, "a")}
    assert "Masks (zip of PNG)" in links and "COCO codes (JSON)" in links
    links["Masks (zip of PNG)"].click()
    got = page.wait(lambda: [path for path in page.driver.downloads.iterdir() if path.suffix == ".zip"])
    assert got[0].name == "walk-masks.zip"
    assert not complaints(page.driver), "nothing in the console"


def test_progress_reload_and_cancel(page, long_video):
    page.upload(long_video)
    running = page.wait(lambda: "frames a second" in (text := page.status()) and text)
    assert " of 150" in running and "left" in running
    assert page.shown().shape == (64, 96, 4), "masks appear while the job runs"
    identity = page.job()
    page.driver.refresh()
    page.wait(lambda: "Frame" in page.status())
    assert page.job() == identity
    page.find("cancel").click()
    page.wait(lambda: page.find("start").is_displayed())
    page.wait(lambda: page.server.ask(f"/jobs/{identity}")[0] == 404)
    page.open(f"#{identity}")
    page.wait(lambda: page.find("error").text.startswith("No such job"))
    assert page.find("start").is_displayed()


def test_views_scrubbing_and_keys(page, finished):
    page.open(f"#{finished}")
    page.wait(lambda: page.status().startswith("Done"))
    frame = page.choose("frame")
    views = {
        view: page.choose(view) for view in ("mask", "contour", "cut-out", "matte", "probability", "flow")
    }
    inside = views["cut-out"][..., 3] > 0
    assert 0 < inside.mean() < 1
    assert np.array_equal(views["cut-out"][inside], frame[inside])
    tinted = (views["mask"][..., :3] != frame[..., :3]).any(axis=2)
    assert (tinted & ~inside).sum() == 0 and tinted[inside].mean() > 0.9
    outline = (views["contour"][..., :3] != frame[..., :3]).any(axis=2)
    assert 0 < outline.sum() < inside.sum()
    assert (views["matte"][..., 0] == views["matte"][..., 2]).all()
    assert np.ptp(views["probability"][..., 0]) > 100
    assert (views["flow"] != frame).any()

    page.driver.execute_script("document.activeElement.blur()")
    page.type(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.find("frame").text == "3 / 24"
    page.type("1")
    assert not np.array_equal(page.shown(), frame), "another frame"
    page.type(Keys.SPACE)
    assert page.find("play").text == "Pause"
    page.wait(lambda: page.find("frame").text == "24 / 24")
    page.wait(lambda: page.find("play").text == "Play")
    scrub = page.find("scrub")
    scrub.send_keys(Keys.HOME)
    assert page.find("frame").text == "1 / 24"
    assert np.array_equal(page.shown(), frame)


def test_a_refused_file_leaves_the_page_ready(page, tmp_path, video):
    (tmp_path / "notes.mp4").write_text("not a video" * 100)
    page.upload(tmp_path / "notes.mp4")
    page.wait(lambda: page.find("error").text.startswith("This is not a video"))
    assert page.find("start").is_displayed()
    (tmp_path / "half.mp4").write_bytes(video.read_bytes()[:600])
    page.upload(tmp_path / "half.mp4")
    page.wait(lambda: page.find("error").text.startswith("This is not a video that can be read"))
    page.find("another").click()
    page.wait(lambda: page.find("start").is_displayed())


def test_a_name_is_text(page, tmp_path):
    name = "<img src=x onerror=alert(1)>.avi"
    page.upload(make_video(tmp_path / name, frames=2))
    page.wait(lambda: page.status().startswith("Done"))
    assert page.find("job-title").text == name
    assert not page.find("job-title").find_elements(By.TAG_NAME, "img")


def test_a_sample_is_followed_by_the_keyboard_alone(page):
    for _ in range(20):
        webdriver.ActionChains(page.driver).send_keys(Keys.TAB).perform()
        if page.driver.switch_to.active_element.text == "Sample 1":
            break
    focused = page.driver.switch_to.active_element
    assert focused.text == "Sample 1"
    outline = (
        "return getComputedStyle(arguments[0]).outlineStyle + getComputedStyle(arguments[0]).outlineWidth"
    )
    assert page.driver.execute_script(outline, focused) == "solid3px", "focus is seen"
    focused.send_keys(Keys.ENTER)
    page.wait(lambda: page.find("job-title").is_displayed() and page.find("job-title").text == "sample-1")
    page.wait(lambda: page.status().startswith(("Frame", "Done")))
    page.find("cancel").click()


def drag(page, *places, on="painting"):
    """The pointer goes from place to place, in pixels of the picture, with its button down."""
    canvas = page.find(on)
    box, width = canvas.rect, int(canvas.get_attribute("width"))
    height = int(canvas.get_attribute("height"))
    scale = min(box["width"] / width, box["height"] / height)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    pointer = webdriver.ActionChains(page.driver, duration=20)
    for index, (x, y) in enumerate(places):
        pointer.move_to_element_with_offset(
            canvas, round((x - width / 2) * scale), round((y - height / 2) * scale)
        )
        if index == 0:
            pointer.click_and_hold()
    pointer.release().perform()


def marked(page):
    """Where something is painted, (h, w) bool."""
    canvas = page.find("painting")
    code = "const [c] = arguments; return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    size = int(canvas.get_attribute("height")), int(canvas.get_attribute("width"))
    pixels = np.array(page.driver.execute_script(code, canvas), dtype=np.uint8).reshape(*size, 4)
    return pixels[..., 3] == 160


def choose_tool(page, tool):
    page.driver.find_element(By.CSS_SELECTOR, f"input[value='{tool}']").click()


def test_painted_objects_are_followed(page, finished):
    complaints(page.driver)
    page.open(f"#{finished}")
    page.wait(lambda: page.status().startswith("Done"))
    page.type(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.find("paint").click()
    page.wait(lambda: page.find("painting").is_displayed())
    page.find("send-mask").click()
    assert page.find("error").text.startswith("The mask is empty")
    assert page.job() == finished
    drag(page, (20, 24), (30, 40))
    brushed = marked(page).sum()
    assert 200 < brushed < 1500
    choose_tool(page, "erase")
    drag(page, (20, 24), (22, 26))
    assert 0 < marked(page).sum() < brushed
    page.find("clear").click()
    assert not marked(page).any()
    choose_tool(page, "box")
    drag(page, (8, 10), (50, 54))
    page.wait(lambda: marked(page).any())
    inside = marked(page)
    square = np.zeros((64, 96), bool)
    square[16:48, 14:44] = True
    assert (inside & square).sum() / (inside | square).sum() > 0.85, "the square of frame 3"
    page.find("object").send_keys("2")
    choose_tool(page, "brush")
    drag(page, (70, 50), (74, 52))
    page.find("send-mask").click()
    page.wait(lambda: page.job() != finished)
    page.wait(lambda: page.status() == "Done: 24 frames, 96 x 64, objects followed from frame 3 on")
    assert not page.find("tools").is_displayed()
    assert page.driver.find_element(By.CSS_SELECTOR, "input[value='mask']").is_selected()
    page.find("scrub").send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    before = page.choose("frame")[..., :3].astype(int)
    tint = page.choose("mask")[..., :3].astype(int) * 2 - before
    assert np.abs(tint[32, 30] - (128, 0, 0)).max() < 12 and np.abs(tint[50, 71] - (0, 128, 0)).max() < 12
    flow = page.driver.find_element(By.CSS_SELECTOR, "input[value='flow']")
    assert not flow.is_displayed(), "none was computed"
    assert not complaints(page.driver)


def test_an_object_is_painted_by_the_keyboard_alone(page, finished):
    page.open(f"#{finished}")
    page.wait(lambda: page.status().startswith("Done"))
    for _ in range(30):
        if page.driver.switch_to.active_element.get_attribute("id") == "paint":
            break
        webdriver.ActionChains(page.driver).send_keys(Keys.TAB).perform()
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: page.driver.switch_to.active_element.get_attribute("id") == "painting")
    painting = page.driver.switch_to.active_element
    painting.send_keys(Keys.SPACE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.SPACE)
    assert marked(page)[32, 46] and marked(page)[32, 62] and not marked(page)[32, 30]
    choose_tool(page, "box")
    page.find("clear").click()
    painting.send_keys(*[Keys.ARROW_LEFT] * 5, *[Keys.ARROW_UP] * 3, Keys.ENTER)
    painting.send_keys(*[Keys.ARROW_RIGHT] * 5, *[Keys.ARROW_DOWN] * 6, Keys.ENTER)
    page.wait(lambda: marked(page).sum() > 500)
    assert page.driver.execute_script(NAMELESS) == []


CONTRASTS = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (colour) => {
  const linear = (value) => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const [r, g, b] = rgba(colour).map((level) => linear(level / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (rgba(colour)[3] === 255) return colour;
  }
  return "white";
};
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const written = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!written || !node.checkVisibility()) continue;
  const [a, b] = [luminance(getComputedStyle(node).color), luminance(ground(node))].sort((x, y) => y - x);
  found.push([(a + .05) / (b + .05), node.tagName + ": " + node.textContent.trim().slice(0, 40)]);
}
return found;
"""
NAMELESS = """
return [...document.querySelectorAll("button, a, input, select, progress, canvas, output")]
  .filter((node) => node.checkVisibility() || node.type === "file")
  .filter((node) => !(node.textContent.trim() || node.getAttribute("aria-label") || node.labels?.length))
  .map((node) => node.outerHTML);
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_it_can_be_read_at_any_width(page, finished, width, dark):
    page.look(width, 1000, dark)
    for fragment in ("", f"#{finished}"):
        page.open(fragment)
        if fragment:
            page.wait(lambda: page.status().startswith("Done"))
            page.shown()
        wide = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, "nothing juts out"
        contrasts = page.driver.execute_script(CONTRASTS)
        assert len(contrasts) > 5
        assert not [text for contrast, text in contrasts if contrast < 4.5]
        assert page.driver.execute_script(NAMELESS) == []
        picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png()))
        assert picture.width == width
        if folder := os.environ.get("HMHI_SCREENSHOTS"):  # to look at them
            scheme = "dark" if dark else "light"
            picture.save(f"{folder}/{'job' if fragment else 'start'}-{width}-{scheme}.png")
        if fragment:
            page.find("paint").click()
            page.wait(lambda: page.find("tools").is_displayed())
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert not [text for contrast, text in page.driver.execute_script(CONTRASTS) if contrast < 4.5]


def test_the_description_for_programs(page):
    page.driver.get(f"{page.server.address}/docs")
    page.wait(lambda: "POST /jobs?name&image_size&alpha" in page.find("operations").text)
