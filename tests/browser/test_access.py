"""Visitors who see little, use no mouse, or hold a phone: axe-core's rules, and the keyboard alone."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from gan_core.tasks import TASKS

RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "resultTypes": ["violations"],
    "preload": False,
    "selectors": False,
}
LESSONS = {
    "1 Skips": "#skip-levels img",
    "2 Patches": "#patch-view .learn-frame",
    "3 Noise": "#noise-answers img",
    "4 Losses": "#loss-results img",
    "5 Latent space": "#latent-shipped img",
}


def open_tabs(page):
    """Opens one tab after the other, and each lesson; gives its name once it is complete."""
    for task in TASKS.values():
        page.get_by_role("tab", name=task.title, exact=True).click()
        yield task.title
    page.get_by_role("tab", name="Learn").click()
    for title, filled in LESSONS.items():
        page.get_by_role("tab", name=title).click()
        page.locator(filled).first.wait_for()
        yield title


def rest(page) -> None:
    """Waits until nothing is on its way: Gradio pales what is about to be replaced."""
    page.wait_for_function("!document.querySelector('.pending, .generating')")


def violations(page) -> list[str]:
    rules = page.evaluate("async (options) => (await axe.run({exclude: ['.pending']}, options)).violations", RULES)
    return [f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}" for rule in rules for node in rule["nodes"]]


def test_every_tab_keeps_the_rules_of_wcag_at_both_widths_and_in_both_themes(visit):
    page = visit(reduced_motion="reduce").page
    page.evaluate(Axe().axe_script)
    told = []
    page.on("console", lambda message: message.type == "error" and told.append(message.text))
    wrong, wide = {}, []
    for name in open_tabs(page):
        rest(page)
        # Themes differ in colours alone, and widths in what is shown: two of the four pairs have it all.
        for width, theme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 844})
            page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", theme == "dark")
            wrong |= dict.fromkeys(violations(page), (name, width, theme))
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wide.append((name, width))
        page.set_viewport_size({"width": 320, "height": 640})
        if page.evaluate("document.documentElement.scrollWidth") > 320:
            wide.append((name, 320))
    assert not wrong, "\n".join(f"{place}: {violation}" for violation, place in wrong.items())
    assert not wide and not told, (wide, told)


def test_a_page_that_is_opened_dark_is_dark(visit, app_url):
    page = visit(url=f"{app_url}?__theme=dark").page
    assert page.evaluate("document.body.classList.contains('dark')")  # as the test above makes it


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def tab_to(page, selector: str, most: int = 80) -> None:
    """Presses Tab until an element has the focus, as somebody without a mouse would; the focus must be seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            style = "getComputedStyle(document.activeElement)"
            assert page.evaluate(f"{style}.outlineStyle !== 'none' && parseFloat({style}.outlineWidth) >= 2"), selector
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


def has_focus(page, selector: str) -> None:
    page.wait_for_function("(selector) => document.activeElement?.matches(selector)", arg=selector)


def choose_tab(page, name: str) -> None:
    """Opens a tab without a mouse."""
    page.get_by_role("tab", name="Sketch").focus()
    for _ in range(6):
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            return press(page, "Enter")
        press(page, "Tab")
    raise AssertionError(f"no tab {name}")


@pytest.mark.parametrize("task", ["sketch2face", "facades", "segmentation", "vaegan"])
def test_tab_passes_every_control_of_a_board_and_leaves_it(visit, mix_url, task):
    opened = visit(task, url=mix_url if task == "vaegan" else None)
    page = getattr(opened, "page", opened)
    board = {"sketch2face": "sketch-board", "facades": "facade-board", "segmentation": "segment-view"}.get(
        task, "mix-board"
    )
    rest(page)
    page.get_by_role("tab", name=TASKS[task].title, exact=True).focus()
    passed = page.evaluate(
        """(board) => [...document.getElementById(board).querySelectorAll("button, input, canvas[tabindex]")]
            .filter((one) => one.checkVisibility() && one.tabIndex >= 0 && one.type !== "file")
            .map((one, i) => (one.dataset.passed = "no")).length""",
        board,
    )
    assert passed > 4
    for _ in range(passed + 60):
        press(page, "Tab")
        inside = page.evaluate(
            """(board) => {
                document.activeElement.dataset.passed = "yes";
                return Boolean(document.activeElement.closest("#" + board));
            }""",
            board,
        )
        if not inside and not page.locator("[data-passed=no]").count():
            return
    raise AssertionError(page.locator("[data-passed=no]").evaluate_all("(all) => all.map((one) => one.outerHTML)"))


def test_a_face_is_made_and_kept_by_the_keyboard_alone(visit):
    pen = visit()
    page = pen.page
    choose_tab(page, "Sketch")
    tab_to(page, ".pad-examples button")
    press(page, "Enter")
    page.locator("#sketch-board:has([data-action=undo][aria-disabled=false])").wait_for()
    tab_to(page, "#surprise")
    press(page, "v")  # not on the board: nothing of it
    page.keyboard.press("Shift+Tab")
    press(page, "v")
    page.locator("#sketch-board .pad-variants img").nth(3).wait_for()
    page.get_by_role("button", name="Variants").focus()
    press(page, "Enter")
    has_focus(page, "[data-action=variants]")
    page.locator("[data-action=variants][aria-disabled=false]").first.wait_for()
    has_focus(page, "[data-action=variants]")
    page.locator("#sketch-board [data-action=undo]").focus()
    press(page, "Enter")
    has_focus(page, "[data-action=undo]")
    assert page.locator("#sketch-board [data-action=undo]").is_disabled()
    page.locator("#sketch-board [data-action=save-result]").focus()
    with page.expect_download():
        press(page, "Enter")


def test_a_class_is_chosen_by_the_arrow_keys(visit):
    page = visit("facades").page
    page.get_by_role("radio", name="wall").focus()
    press(page, "ArrowRight")
    chosen = page.locator("#facade-board [role=radio][aria-checked=true]")
    assert chosen.inner_text() == "window"
    press(page, "ArrowRight")
    assert chosen.inner_text() == "door"
    has_focus(page, "[role=radio][aria-checked=true][tabindex='0']")
    assert page.locator("#facade-board [role=radio][tabindex='0']").count() == 1


def test_a_mix_is_made_by_the_keyboard_alone(visit, mix_url):
    page = visit("vaegan", url=mix_url).page
    choose_tab(page, "Sketch")
    choose_tab(page, "Mix")
    board = page.locator("#mix-board")
    board.locator(".pad-alive").wait_for(state="attached")
    tab_to(page, ".mix-weight")
    press(page, "End")
    board.get_by_text("50 %").first.wait_for()
    tab_to(page, ".mix-gallery button")
    press(page, "Enter")
    tab_to(page, ".mix-direction input")
    press(page, "ArrowRight")
    assert board.locator(".mix-direction output").first.inner_text() == "0.1"
    for action, panel in (("sheet", ".mix-sheet"), ("film", ".mix-film")):
        board.locator(f".mix-blend [data-action={action}]").focus()
        press(page, "Enter")
        has_focus(page, panel)
        if action == "sheet":
            tab_to(page, ".mix-cells button")
            press(page, "ArrowDown", "ArrowRight", "Enter")
            assert page.evaluate("document.activeElement.ariaLabel") == "Take the weights of blend 12"
            assert page.evaluate("document.activeElement.ariaPressed") == "true"
        press(page, "Escape")
        has_focus(page, f".mix-blend [data-action={action}]")
        assert not board.locator(panel).is_visible()
    board.get_by_role("button", name="Another seed").first.focus()
    press(page, "Enter")
    board.locator("[data-action=add]").focus()
    press(page, "Enter")
    board.get_by_role("button", name="Take this face out").last.focus()
    press(page, "Enter")
    has_focus(page, ".mix-slot:nth-child(3) .mix-choose")


def test_messages_are_read_out_and_nothing_moves_for_who_wants_it_so(visit):
    page = visit(reduced_motion="reduce").page
    status = page.locator("#sketch-board .pad-status")
    assert status.evaluate("(one) => one.textContent === '' && one.checkVisibility()"), "not known before it speaks"
    face = page.locator("#sketch-board .pad-face")
    assert face.evaluate("(one) => getComputedStyle(one).transitionDuration") == "0s"
