import pytest

from app import create_demo, launch
from tests.browser.chromium import Pen, open_browser


@pytest.fixture(scope="package")
def app_url():
    demo = create_demo()
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url
    demo.close()


@pytest.fixture(scope="package")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser, app_url):
    """Opens the app as a new visitor.

    `pen = visit(width=390, height=844, has_touch=True)`, `pen = visit("facades")`, `page = visit("segmentation")`.
    """
    contexts = []

    def open_page(task="sketch2face", width=1280, height=900, url=app_url, **options) -> Pen:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(url)
        if task == "segmentation":
            page.get_by_role("tab", name="Segment").click()
            page.locator("#segment-view .seg-loaded").wait_for()
            return page
        if task == "facades":
            page.get_by_role("tab", name="Facade").click()
            return Pen(page, "#facade-board")
        return Pen(page)

    yield open_page
    problems = [problem for context in contexts for page in context.pages for problem in page.problems]
    for context in contexts:
        context.close()
    assert not problems
