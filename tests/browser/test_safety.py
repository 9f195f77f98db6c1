"""Two visitors in two browsers, and what their browsers load."""

import io

from PIL import Image

from gan_core.provenance import SOURCE_TYPE
from gan_core.tasks import TASKS
from tests.browser.chromium import FILLED


def test_one_visitor_sees_nothing_of_another(visit):
    other, one = visit(alone=True), visit(alone=True)
    empty = other.drawing_url()
    one.stroke([(0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)])
    one.settle()
    assert one.ink() > 500 and other.ink() == 0
    assert other.drawing_url() == empty
    other.page.reload()
    assert type(other)(other.page).ink() == 0
    stores = "() => [document.cookie, Object.keys(localStorage), Object.keys(sessionStorage)]"
    cookies, _, _ = other.page.evaluate(stores)
    assert cookies == "" and one.page.context.cookies() == []


def test_a_page_loads_nothing_from_anybody_else(visit):
    pen = visit(alone=True)
    asked, refused = [], []
    pen.page.on("request", lambda request: asked.append(request.url))
    pen.page.on("console", lambda message: refused.append(message.text))
    pen.page.reload()
    type(pen)(pen.page).settle()
    for title, filled in zip([*(task.title for task in TASKS.values()), "Learn"], FILLED):
        pen.page.get_by_role("tab", name=title).click()
        pen.page.locator(filled).first.wait_for(state="attached")
    own = pen.page.evaluate("location.origin")
    strangers = [url for url in asked if not url.startswith((own, "data:", "blob:", own.replace("http", "ws")))]
    assert not [url for url in strangers if "huggingface" in url or "analytics" in url], strangers
    assert not strangers, (strangers, refused)


def test_the_picture_one_keeps_says_that_it_was_made(visit, mix_url):
    pen = visit("vaegan", url=mix_url)
    with pen.page.expect_download() as download:
        pen.click("save")
    with open(download.value.path(), "rb") as file:
        data = file.read()
    assert SOURCE_TYPE.encode() in data
    assert Image.open(io.BytesIO(data)).size == (384, 384)
