"""Visitors whose browser speaks Japanese or Korean; and one with a language that the app has not."""

import re

import pytest

from app import read_languages
from gan_core.tasks import TASKS
from tests.browser.chromium import FILLED, oval

LANGUAGES = read_languages()
TITLES = [*(task.title for task in TASKS.values()), "Learn"]
NAMES = r"JPEG|PNG|GIF|MP4|WebP|Ctrl|Shift|Del|Pascal VOC|API|nat"  # the same in every language
TEXTS = """() => {
    const texts = [document.title];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); ) {
        if ((node.parentElement ?? node).closest("[lang=en], script, style")) continue;
        if (node.nodeType === Node.TEXT_NODE) texts.push(node.data);
        else texts.push(node.title, node.alt, node.ariaLabel, node.placeholder);
        if (node.role === "combobox") texts.push(node.value);
    }
    return texts.filter((text) => typeof text === "string");
}"""


def said(page, letters: str) -> list[str]:
    """Texts of the page with such letters in them."""
    return sorted({text for text in page.evaluate(TEXTS) if re.search(letters, re.sub(NAMES, "", text))})


def tabs(page) -> list[str]:
    return [text.strip() for text in page.locator("[role=tab]").all_inner_texts()][: len(TITLES)]


def choose_language(page, name: str) -> None:
    """In Gradio's settings, which must be open."""
    page.get_by_role("combobox", name="Language").click()
    page.get_by_role("option", name=name, exact=True).click()


def test_the_whole_page_speaks_the_language_of_the_browser_or_the_one_that_is_chosen(visit):
    texts = LANGUAGES["ja"]
    page = visit(locale="ja-JP", width=390, height=844).page
    assert page.evaluate("[document.documentElement.lang, document.body.lang]") == ["ja", ""]
    assert tabs(page) == [texts[title] for title in TITLES]
    wide = []
    for title, filled in zip(TITLES, FILLED):
        page.get_by_role("tab", name=texts[title], exact=True).click()
        page.locator(filled).first.wait_for(state="attached")
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(title)
    page.wait_for_function("!document.querySelector('.pending, .generating')")
    assert not wide and not said(page, "[A-Za-z]{3}")
    page.set_viewport_size({"width": 1280, "height": 844})  # on a phone Gradio hides what opens the settings
    page.get_by_role("button", name="設定").click()
    choose_language(page, "한국어")
    page.get_by_role("tab", name=LANGUAGES["ko"]["Learn"]).wait_for()
    gradio = "ここに画像ファイルをドロップしてアップロードしてください"  # its own, and it does not follow
    assert set(said(page, "[ぁ-ヿ]")) <= {gradio}


@pytest.mark.parametrize("locale", ["ja-JP", "ko-KR"])
def test_a_face_is_drawn_in_the_language_of_the_browser(visit, locale):
    texts = LANGUAGES[locale[:2]]
    pen = visit(locale=locale)
    before = pen.face_url()
    pen.stroke(oval(0.5, 0.5, 0.3, 0.35))
    pen.settle()
    assert pen.face_url() != before
    assert pen.board.get_by_role("img", name=texts["The face that belongs to your drawing"]).is_visible()
    pen.board.get_by_role("button", name=texts["Undo"], exact=True).click()
    assert pen.ink() == 0


def test_what_goes_wrong_is_said_in_the_language_of_the_visitor(visit):
    pen = visit(locale="ja-JP")
    page = pen.page
    page.route("**/component_server**", lambda route: route.abort())
    pen.stroke([(0.2, 0.5), (0.8, 0.5)])
    page.get_by_text("サーバーから応答がありません。絵はこのページに残っています。 再試行しています…").wait_for()
    page.unroute("**/component_server**")
    with page.expect_file_chooser() as chooser:
        page.click("#upload")
    chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.get_by_text("このファイルは、名前にかかわらず画像として読み込めません。").wait_for()


def test_another_language_gets_english_and_says_so(visit):
    page = visit(locale="de-DE").page
    assert tabs(page) == TITLES
    assert page.evaluate("[document.documentElement.lang, document.body.lang]") == ["de", "en"]
    assert page.get_by_role("button", name="Undo").first.get_attribute("title") == "Undo (Ctrl+Z)"


def test_english_can_be_left_and_chosen_again_in_the_settings(visit):
    page = visit(locale="en-GB").page
    undo = page.locator("#sketch-board [data-action=undo]")
    page.get_by_role("button", name="Settings").click()
    choose_language(page, "日本語")
    page.get_by_role("tab", name="ミックス").wait_for()
    assert undo.get_attribute("title") == "取り消し（Ctrl+Z）"
    choose_language(page, "English")
    page.get_by_role("tab", name="Mix").wait_for()
    assert tabs(page) == TITLES and page.title() == "Draw a line, see a face"
    assert undo.get_attribute("title") == "Undo (Ctrl+Z)"
