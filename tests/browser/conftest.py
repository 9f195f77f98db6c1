from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import pytest

from app import create_demo, launch
from gan_core.tasks import TASKS
from tests.browser.chromium import Pen, open_browser

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
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url
    demo.close()


@pytest.fixture(scope="package")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser, request):
    """Opens the app as a new visitor: `pen = visit(width=390, height=844, has_touch=True)`, or `visit("facades")`.

    `visit("segmentation")`, which has no pen, gives the page. url: of another app than that with the shipped models.
    choose_tab: whether the visitor clicks the tab of the task; a link may open it.
    """
    contexts = []

    def open_page(task="sketch2face", width=1280, height=900, url=None, choose_tab=True, **options) -> Pen:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
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
    problems = [problem for context in contexts for page in context.pages for problem in page.problems]
    for context in contexts:
        context.close()
    assert not problems
