"""assets/languages: every file translates all that the page says, and nothing else."""

import ast
import re
from html.parser import HTMLParser

import gradio as gr
import pytest

from app import ASSETS, create_demo, read_languages
from gan_core import FaceMixer
from gan_core.palette import FACADES, VOC

LANGUAGES = read_languages()
SCRIPTS = [file for file in sorted(ASSETS.glob("*.js")) if file.name != "language.js"]
LIBRARY = ["batching", "faces", "image", "limits", "palette", "recipe"]  # its modules whose sentences a visitor reads
MODULES = [ASSETS.parent / "app.py", *(ASSETS.parent / "gan_core" / f"{name}.py" for name in LIBRARY)]
SPEAKERS = {"PictureError", "NoFaceError", "RecipeError", "BusyError", "Warning"}
FOR_PROGRAMS = {"mix_api", "read_upload", "publish"}  # what these say no visitor of the page reads
GRADIO = {  # says this in English in whatever language
    "Remove Image",
    "File upload",
    "Upload file",
    "Capture from camera",
    "Stop Recording",
    "number input for {1}",
    "range slider for {1}",
    "Reset to default value",
    "Gradio footer navigation",
    "Warning",
    "Error",
    "common.complete",
    "File(s) exceed the maximum allowed size of {1}: {2}",
    "processing |",
    "queue: {1} |",
    "In queue: {1} of {2}",
}
# Literals of JavaScript; in a template ${...}, which may hold braces and another template.
VALUE = r"\$\{(?:[^{}`]|\{[^{}]*\}|`[^`]*`)*\}"
LITERAL = re.compile(rf'"((?:[^"\\\n]|\\.)*)"|`((?:[^`$\\]|\\.|{VALUE})*)`')
COMMENT = re.compile(r"(?:^|\s)//.*")


class Texts(HTMLParser):
    """What people see or hear of a piece of HTML."""

    def __init__(self, html: str):
        super().__init__()
        self.found = set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found |= {value for name, value in attributes if name in ("title", "alt", "aria-label", "placeholder")}

    def handle_data(self, data):
        self.found.add(data.strip())


def numbered(text: str, value: str = "\0") -> str:
    """A text with {1}, {2} ... in place of what differs from time to time."""
    numbers = iter(range(1, 10))
    return re.sub(value, lambda _: f"{{{next(numbers)}}}", text)


def pieces(markdown: str) -> set[str]:
    """The texts between the marks: on the page each is one for itself."""
    return {numbered(piece.strip()) for piece in re.split(r"[*|\n]+|^# |^### ", markdown)}


def board_texts(demo: gr.Blocks) -> set[str]:
    boards = [
        block for block in demo.blocks.values() if type(block).__module__ == "app" and hasattr(block, "html_template")
    ]
    return set().union(*(Texts(board.html_template).found for board in boards))


def component_texts(demo: gr.Blocks) -> set[str]:
    """Labels, hints and choices. Not the lessons themselves, which stay English."""
    texts = {demo.title}
    for block in (one for one in demo.blocks.values() if one.parent):  # the others are those of the endpoints
        if isinstance(block, gr.Dataset):
            texts.add(block.label)
        elif isinstance(block, gr.Markdown):
            texts |= pieces(block.value) if "lang=" not in block.value else set()
        elif not isinstance(block, gr.HTML):
            texts |= {getattr(block, name, None) for name in ("label", "info", "placeholder")}
            texts |= {name for name, _ in getattr(block, "choices", None) or ()}
            texts |= {block.value} if isinstance(block, gr.Button) else set()
    return {text for text in texts if isinstance(text, str)}


def script_texts() -> set[str]:
    """All literals of the boards' JavaScript."""
    code = "\n".join(
        COMMENT.sub("", line) for file in SCRIPTS for line in file.read_text(encoding="utf-8").splitlines()
    )
    return {numbered((plain or template).strip(), VALUE) for plain, template in LITERAL.findall(code)}


def python_texts(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return pieces(node.value)
    if isinstance(node, ast.JoinedStr):
        return pieces("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
    return set()


def spoken(tree: ast.AST) -> set[str]:
    """What Python tells a visitor when something is wrong."""
    texts = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name in FOR_PROGRAMS:
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in SPEAKERS:
            for part in [*node.args, *(keyword.value for keyword in node.keywords)]:
                texts |= python_texts(part)
        if isinstance(node, ast.FunctionDef) and node.name == "doubt":
            texts |= {
                text for line in ast.walk(node) if isinstance(line, ast.Return) for text in python_texts(line.value)
            }
        texts |= spoken(node)
    return texts


def pattern(key: str) -> re.Pattern:
    return re.compile(re.sub(r"\\\{\d\\\}", ".*", re.escape(key)), re.DOTALL)


def is_text(literal: str) -> bool:
    """Whether a literal is for people: in the JavaScript here such ones are sentences."""
    return bool(re.match(r"(\{1\} |“)?[A-Z][a-z]* .*[a-z]", literal))


@pytest.fixture(scope="module")
def demo(small_models):
    return create_demo(small_models)


@pytest.fixture(scope="module")
def said(demo) -> set[str]:
    """What the page must be able to say."""
    trees = [ast.parse(module.read_text(encoding="utf-8")) for module in MODULES]
    texts = board_texts(demo) | component_texts(demo) | {text for text in script_texts() if is_text(text)}
    texts |= set().union(*map(spoken, trees), FACADES.names, VOC.names)
    texts |= set(FaceMixer.from_checkpoint(ASSETS / "checkpoints" / "vaegan.safetensors").direction_names)
    for file in (ASSETS / "examples").glob("*/*.*g"):
        texts.add(re.sub(r"^\d ", "", file.stem.replace("_", " ")))
    return {text for text in texts if re.search("[A-Za-z]{3}", text)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_the_page_says_is_translated(language, said):
    known = [pattern(key) for key in LANGUAGES[language]]
    same = {"MP4", "GIF"}
    missing = {text for text in said - same if not any(one.fullmatch(text) for one in known)}
    assert not missing, f"translate in assets/languages/{language}.json: {sorted(missing)}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_of_what_nobody_says_any_more(language, said):
    nodes = [node for module in MODULES for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))]
    written = (said | GRADIO | script_texts()).union(*map(python_texts, nodes))
    unused = {key for key in LANGUAGES[language] if not any(map(pattern(key).fullmatch, written))}
    assert not unused, f"take out of assets/languages/{language}.json: {sorted(unused)}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_are_those_of_the_english_text(language):
    for english, translation in LANGUAGES[language].items():
        assert translation.strip(), english
        assert set(re.findall(r"\{.*?\}", translation)) == set(re.findall(r"\{.*?\}", english)), english


def test_a_translation_is_no_plain_number_or_sign():
    """Such texts stand on the page for themselves, and would be taken for the translation when languages change."""
    for texts in LANGUAGES.values():
        assert all("{1}" in translation or not translation.isascii() for translation in texts.values())


def test_every_language_translates_the_same(said):
    first, *others = LANGUAGES.values()
    assert all(list(other) == list(first) for other in others)


def test_no_value_that_a_component_sends_is_translated(demo):
    """Gradio would translate the chosen one too, and the choice would be lost."""
    values = {value for block in demo.blocks.values() for _, value in getattr(block, "choices", None) or ()}
    for texts in LANGUAGES.values():
        assert not values & set(texts)
