from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import pytest

from app import create_demo, launch
from gan_core.tasks import TASKS
from tests.browser.chromium import Pen, open_browser
from tests.waiting import LONGEST

BOARDS = {"sketch2face": "#sketch-board", "facades": "#facade-board", "vaegan": "#mix-board"}


@pytest.fixture(scope="package")
def app_url():
    with serving(create_demo()) as url:
        yield url


@pytest.fixture(scope="package")
def mix_url(mixer_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.GALLERY", list(range(1, 25)))
        demo = create_demo(mixer_folder)
    with serving(demo) as url:
        yield url


@contextmanager
def serving(demo: gr.Blocks) -> Iterator[str]:
    # The visitors of all tests come from one address: as many as it likes, or they would wait for each other.
    _, url, _ = launch(demo, rate=1e6, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url
    demo.close()


@pytest.fixture(scope="package")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="package")
def known(browser):
    """Contexts of browsers that have been here before, which need not fetch the app anew; by their options."""
    contexts = {}
    yield contexts
    for context in contexts.values():
        context.close()


@pytest.fixture
def visit(browser, known, request):
    """Opens the app as a new visitor: `pen = visit(width=390, height=844, has_touch=True)`, or `visit("facades")`.

    `visit("segmentation")`, which has no pen, gives the page. url: of another app than that with the shipped models.
    choose_tab: whether the visitor clicks the tab of the task; a link may open it. alone: in a browser of their own.
    """
    pages, own = [], []

    def open_page(task="sketch2face", width=1280, height=900, url=None, choose_tab=True, alone=False, **options) -> Pen:
        options |= {"viewport": {"width": width, "height": height}}
        context = None if alone else known.get(repr(options))
        if not context:
            context = browser.new_context(accept_downloads=True, **options)
            context.set_default_timeout(1000 * LONGEST)
            if alone:
                own.append(context)
            else:
                known[repr(options)] = context
        page = context.new_page()
        pages.append(page)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(url or request.getfixturevalue("app_url"))
        if choose_tab and task != "sketch2face":  # which is open at first
            page.get_by_role("tab", name=TASKS[task].title).click()
        if task == "segmentation":
            page.locator("#segment-view .seg-loaded").wait_for()
            return page
        return Pen(page, BOARDS[task])

    yield open_page
    problems = [problem for page in pages for problem in page.problems]
    for page in pages:
        page.evaluate("localStorage.clear()")
        page.context.clear_cookies()
        page.close()
    for context in own:
        context.close()
    assert not problems
