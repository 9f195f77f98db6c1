"""The web app. Draw a line, see a face; paint a facade, see the building; show a photo, see what is in it; slide
weights, watch faces blend.

python app.py [--checkpoints DIR] [--model TASK=PLACE] [--host HOST] [--port PORT] [--mcp]
"""

import argparse
import asyncio
import base64
import functools
import importlib.util
import inspect
import io
import json
import logging
import math
import os
import random
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template
from typing import Annotated

# Read when torch is imported. Else its threads stay awake after their work, in the way of those of OpenVINO.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from pydantic import Field, SkipValidation, ValidationError, validate_call
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, hub
from gan_core.batching import Batcher, BusyError
from gan_core.checkpoint import CheckpointError
from gan_core.facades import random_facade, read_pair
from gan_core.faces import crop_face
from gan_core.film import make_films
from gan_core.image import PictureError, open_picture, read_data_url, resize, shrink, tile, to_data_url
from gan_core.lessons import (
    Twin,
    draw_bars,
    draw_codes,
    kl_per_unit,
    load_twin,
    noisy_answers,
    plane,
    predict_through,
    receptive_field,
    skip_levels,
    spread,
)
from gan_core.limits import Limits
from gan_core.lineart import PHOTO_SIDE, draw_lines, is_drawing, normalise_drawing, random_doodle, read_drawing
from gan_core.palette import FACADES, VOC
from gan_core.predictor import MAX_VARIANTS
from gan_core.provenance import disclosure
from gan_core.recipe import (
    LARGEST_SHIFT,
    LARGEST_WEIGHT,
    MAX_SEED,
    MOST_FACES,
    Recipe,
    RecipeError,
    doubt,
    name_directions,
    random_weights,
    read_face,
    read_faces,
    read_recipe,
    read_seed,
    write_latent,
)
from gan_core.runtime import give_back_memory
from gan_core.segmenter import class_shares, lay_over
from gan_core.tasks import TASKS, Task

getfile = inspect.getfile  # torch's own, which it has put there: so this comes after gan_core


def find_file(thing: object) -> str:
    """`inspect.getfile`, for which Gradio's classes have no file. Else Gradio parses it, and writes type stubs for
    editors, whenever a component is defined: half of what its import takes."""
    if isinstance(thing, type) and thing.__module__.startswith("gradio."):
        raise FileNotFoundError("no stubs are wanted")
    return getfile(thing)


inspect.getfile = find_file
try:
    import gradio as gr
    from gradio.components.base import server
    from gradio.processing_utils import save_bytes_to_cache
    from gradio.utils import get_space, get_upload_folder
    from gradio_client.utils import is_file_obj_with_meta
finally:
    inspect.getfile = getfile
with suppress(AttributeError):  # no stubs for our own classes either
    gr.component_meta.create_or_modify_pyi = gr.blocks_events.create_or_modify_pyi = lambda *_, **__: None

ROOT = Path(__file__).parent
ASSETS = ROOT / "assets"
MAX_UPLOAD = 20  # MB
MAX_RATE = 75  # requests a second from one address: what two cores can answer in all
MAX_WAITING = 64  # drawings at a board, or clicks
MAX_CONNECTIONS = 800  # two for each visitor; many systems allow a process 1024 files and sockets
PRIVATE_NETWORKS = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
UPLOADS_LIVE = (60, 600)  # seconds: each minute, files that are older than ten are deleted
SESSIONS = 400  # visitors whose state is kept, 0.2 MB and a face of 0.8 MB at most; who was away longest is forgotten
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), payment=(), usb=()",
    # Gradio makes its page with inline scripts, and gr.HTML runs its JavaScript by `new Function`.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
    ),
}
SHOWN_SIDE = 1600  # at most, of a photo as it is shown under its classes
# Seeds of the faces to choose from, picked by eye; a mix starts with the first three.
GALLERY = [15, 28, 65, 73, 113, 106, 9, 11, 62, 45, 41, 17, 58, 54, 7, 82, 29, 76, 34, 92, 83, 61, 117, 102]
SHEET = 10  # blends in a row and in a column
FRAMES = 120  # of a film
SAVED = 384  # pixels a side, of a blend that is downloaded
SETTLE = 3  # seconds for a page that is opened at once to load, before compiling takes the processor
TYPICAL = 16  # surprises by which a network is prepared for 8-bit integers, beside the examples
PRIVATE = {"api_visibility": "private"}
LIVE = {"show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE}
# What other programs send. Pydantic checks the numbers; a picture comes as a dict, for `read_upload`.
Upload = Annotated[gr.FileData, SkipValidation]
Variants = Annotated[int, Field(ge=0, le=MAX_VARIANTS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=LARGEST_WEIGHT)]

logger = logging.getLogger(__name__)


def asset(*names: str) -> str:
    """The texts of files in assets/, one after the other."""
    return "".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def one_by_one(waiting: int) -> Batcher:
    """Runs functions without arguments in a thread, in turn."""
    return Batcher(lambda jobs: [job() for job in jobs], largest=1, waiting=waiting)


def explained(function: Callable[..., Awaitable[dict]]) -> Callable[..., Awaitable[dict]]:
    """A server function of a board, called by its page; errors become a sentence for the visitor."""

    @functools.wraps(function)
    async def answer(self, request=None) -> dict:
        try:
            return await function(self, request if isinstance(request, dict) else {})
        except (PictureError, RecipeError, BusyError, CheckpointError) as error:
            return {"error": str(error)}
        except Exception:
            logger.exception("%s could not answer", function.__qualname__)
            return {"error": "Something went wrong here. Undo the last change, or reload the page."}

    return server(answer)


class LiveBoard(gr.HTML):
    """Paper to draw on, and beside it what a predictor makes of it while the line grows.

    As an output it takes a drawing as PIL picture, or (drawing, photo to compare the result with).

    model: a parameter must not be named like the attribute that keeps it, or Gradio copies it for each visitor.
    paper: name of its files in assets/, "sketchpad" or "facade". surprise: seed -> something that people could draw.
    source, result: what one draws and sees, in a word. options: those of gr.HTML; what it does not know becomes a
    property that the JavaScript can read.
    """

    def __init__(
        self,
        model: Pix2PixPredictor,
        paper: str,
        surprise: Callable[[int], Image.Image],
        source: str,
        result: str,
        **options,
    ):
        self.predictor = predictor = model
        self.example_files = sorted((ASSETS / "examples" / predictor.task.name).glob("*.png"))
        self.draw, self.predict = surprise, Batcher(predictor.predict_batch)
        self.work = one_by_one(32)
        guide, tools = asset(f"{paper}.html").split("<!-- tools -->")
        board = Template(asset("board.html"))
        super().__init__(
            html_template=board.substitute(guide=guide, tools=tools, source=source, result=result),
            js_on_load=asset("live.js", "board.js", f"{paper}.js"),
            apply_default_css=False,
            storage=f"board-{predictor.task.name}",
            judged=predictor.discriminator is not None,
            source=source,
            result=result,
            **options,
        )

    def warm_up(self) -> None:
        typical = [open_picture(file) for file in self.example_files]
        self.predictor.accelerate(typical + [self.draw(seed) for seed in range(TYPICAL)])

    def postprocess(self, value: Image.Image | tuple[Image.Image, Image.Image] | None) -> dict | None:
        if value is None:
            return None
        drawing, reference = value if isinstance(value, tuple) else (value, None)
        reference = reference and to_data_url(reference, "JPEG", quality=92)
        return {"drawing": to_data_url(drawing, "PNG"), "reference": reference}

    @explained
    async def redraw(self, request: dict) -> dict:
        """During each stroke. request: `drawing` as data URL, `realism` if the map is wanted."""
        drawing = read_data_url(request.get("drawing"))
        picture = await self.predict(drawing)
        answer = {"picture": to_data_url(picture, "JPEG", quality=92, **disclosure("JPEG"))}
        if request.get("realism") and self.predictor.discriminator:
            realism = await self.work(functools.partial(self.predictor.realism, drawing, picture))
            answer["realism"] = to_data_url(heat_map(realism), "PNG")
        return answer

    @explained
    async def variants(self, request: dict) -> dict:
        """Four answers to one drawing. request: `drawing` as data URL, `seed`."""
        drawing, seed = read_data_url(request.get("drawing")), read_seed(request.get("seed", 0))
        pictures = await self.work(functools.partial(self.predictor.predict_variants, drawing, 4, seed=seed))
        return {"pictures": [to_data_url(picture, "JPEG", quality=92, **disclosure("JPEG")) for picture in pictures]}

    @server
    def examples(self, request=None) -> list[dict]:
        """Drawings to start from."""
        return self.drawn_examples

    @functools.cached_property
    def drawn_examples(self) -> list[dict]:
        return [
            {"name": file.stem.replace("_", " "), "drawing": to_data_url(open_picture(file), "PNG")}
            for file in self.example_files
        ]


class MixBoard(gr.HTML):
    """Faces with a weight each, and the face between them, which follows while a slider moves.

    The page keeps what its visitor mixes and sends it with each question: nothing here belongs to anybody.
    """

    def __init__(self, model: FaceMixer, **options):
        self.mixer = mixer = model
        self.decode = Batcher(mixer.decode, largest=32)
        self.work = one_by_one(32)
        self.filming = one_by_one(8)  # a film takes seconds: in a queue of its own nobody else waits for it
        self.film_shares: dict[str, float] = {}  # what is done of the films that are being made
        faces = [read_face(mixer, {"seed": seed}) for seed in GALLERY]
        self.gallery = functools.cache(lambda: {"pictures": [thumbnail(mixer.decode(face)) for face in faces]})
        super().__init__(
            html_template=asset("mixer.html"),
            js_on_load=asset("live.js", "mixer.js"),
            apply_default_css=False,
            storage="board-vaegan",
            source="mix",
            directions=name_directions(mixer),
            limits={"faces": MOST_FACES, "seed": MAX_SEED, "shift": LARGEST_SHIFT, "frames": FRAMES},
            gallery=GALLERY,
            **options,
        )

    def warm_up(self) -> None:
        self.mixer.accelerate()
        self.gallery()

    @explained
    async def blend(self, request: dict) -> dict:
        """While a slider moves. request: see `gan_core.recipe.read_recipe`."""
        (latent,) = read_recipe(self.mixer, request).blend(self.mixer)
        return {"picture": to_data_url(await self.decode(latent), "PNG", **disclosure("PNG"))}

    @explained
    async def large(self, request: dict) -> dict:
        """As `blend`, at the size in which one keeps it: what is downloaded comes from here, and says what it is."""
        (latent,) = read_recipe(self.mixer, request).blend(self.mixer)
        picture = resize(await self.decode(latent), (SAVED, SAVED))
        return {"picture": to_data_url(picture, "PNG", **disclosure("PNG"))}

    @explained
    async def faces(self, request: dict) -> dict:
        """Thumbnails. request: `faces`."""
        latents = read_faces(self.mixer, request.get("faces"), MOST_FACES)
        pictures = await asyncio.gather(*map(self.decode, latents))
        return {"pictures": [thumbnail(picture) for picture in pictures]}

    @explained
    async def choose(self, request: dict) -> dict:
        """Thumbnails of the gallery, which are made when somebody first asks."""
        return await self.work(self.gallery)

    @explained
    async def encode(self, request: dict) -> dict:
        """A visitor's own `picture`, as data URL: its latent, and what comes back from it."""
        return await self.work(lambda: self.take_own(request.get("picture")))

    def take_own(self, url: str) -> dict:
        picture = read_data_url(url)
        latent = self.mixer.encode(picture)
        face = self.mixer.decode(latent)
        hint = doubt(picture, face, self.mixer.strangeness(latent))
        return {"latent": write_latent(latent), "picture": thumbnail(face), "hint": hint}

    @explained
    async def sheet(self, request: dict) -> dict:
        """SHEET x SHEET blends with random weights as one picture, by the `seed` of a request."""
        recipe, seed = read_recipe(self.mixer, request), read_seed(request.get("seed"))
        return await self.work(lambda: self.make_sheet(recipe, seed))

    def make_sheet(self, recipe: Recipe, seed: int) -> dict:
        weights = random_weights(len(recipe.faces), SHEET**2, seed)
        sheet = tile(self.mixer.decode(recipe.blend(self.mixer, weights)), SHEET, gap=0)
        return {
            "picture": to_data_url(sheet, "PNG", compress_level=1, **disclosure("PNG")),
            "weights": weights.tolist(),
        }

    @explained
    async def film(self, request: dict) -> dict:
        """The film through the faces. request: a recipe, and a name for the `job`."""
        recipe, job = read_recipe(self.mixer, request), str(request.get("job"))[:64]
        return await self.filming(lambda: self.make_film(recipe, job))

    def make_film(self, recipe: Recipe, job: str) -> dict:
        def progress(share: float) -> None:
            self.film_shares[job] = share

        try:
            films = make_films(self.mixer, recipe.loop(self.mixer, FRAMES), progress)
            return {name: to_base64(film) for name, film in films.items()}
        finally:
            self.film_shares.pop(job, None)

    @explained
    async def film_progress(self, request: dict) -> dict:
        """The share of the film called `job` that is done, from 0 to 1."""
        return {"done": self.film_shares.get(str(request.get("job"))[:64], 0.0)}


def thumbnail(face: Image.Image) -> str:
    return to_data_url(face, "JPEG", quality=90, **disclosure("JPEG"))


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def heat_map(realism: Image.Image, relative: bool = True) -> Image.Image:
    """Violet where a patch gives the picture away, yellow where it passes for a photo; relative within the picture."""
    shares = ImageOps.autocontrast(realism, cutoff=2) if relative else realism
    colours = ImageOps.colorize(shares, black="#4c0d8c", mid="#e0457b", white="#ffe45e")
    return colours.resize((256, 256), Image.Resampling.BICUBIC)


class PhotoFile(gr.Image):
    """Takes a photo by upload, paste or webcam, and hands its file on as it is: `open_picture` says what is wrong."""

    is_template = True  # in the browser it is the image component that it derives from

    def preprocess(self, payload) -> str | None:
        return payload and payload.path


class SegmentView(gr.HTML):
    """A photo under the classes that were found in it, with outlines, names under the pointer and a legend.

    As an output it takes None or (photo as it is to be shown, labels `(H, W)` of any size, palette picture as painted,
    name for its downloads).

    opening: gives such a thing, to be shown at first.
    """

    def __init__(self, opening: Callable[[], tuple], **options):
        self.warm_up = functools.cache(lambda: self.postprocess(opening()))
        self.work = one_by_one(64)
        super().__init__(
            html_template=asset("segments.html"),
            js_on_load=asset("live.js", "segments.js"),
            apply_default_css=False,
            **options,
        )

    def postprocess(self, value: tuple[Image.Image, np.ndarray, Image.Image, str] | None) -> dict | None:
        if value is None:
            return None
        photo, labels, painted, name = value
        mask = VOC.to_indexed(labels)
        return {
            "name": name,
            "photo": to_data_url(photo, "JPEG", quality=90),
            "map": to_data_url(mask.resize(photo.size, Image.Resampling.NEAREST), "PNG"),
            # Half the time of the usual 6, and no more bytes.
            "mask": None if mask.size == photo.size else to_data_url(mask, "PNG", compress_level=4),
            "painted": to_data_url(painted, "PNG"),
            "classes": legend(labels),
            "background": VOC.names.index("background"),
        }

    @explained
    async def first(self, request: dict) -> dict:
        """What the tab opens with; the photo is looked at when somebody first asks."""
        return await self.work(self.warm_up)


class FrameView(gr.HTML):
    """Pictures of one place side by side, and a frame over all of them that the pointer moves.

    As an output it takes {"panels": [(picture, caption)], ...}; for the rest of it see learn.js.
    """

    def __init__(self, **options):
        super().__init__(
            html_template=asset("learn.html"),
            js_on_load=asset("live.js", "learn.js"),
            apply_default_css=False,
            **options,
        )

    def postprocess(self, value: dict | None) -> dict | None:
        if value is None:
            return None
        panels = [{"picture": to_data_url(picture, "PNG"), "caption": caption} for picture, caption in value["panels"]]
        return value | {"panels": panels}


def legend(labels: np.ndarray) -> list[dict]:
    """The classes in a picture, the largest first. labels: uint8 `(H, W)`."""
    return [
        {"number": number, "name": VOC.names[number], "color": VOC.colors[number], "share": share}
        for number, share in class_shares(labels).items()
    ]


# --- The tabs ---------------------------------------------------------------------------------------


def sketch_tab(predictor: Pix2PixPredictor) -> None:
    """Draw a face; or start from an example, a surprise, or the lines of a photo."""
    board = LiveBoard(
        predictor,
        "sketchpad",
        random_doodle,
        "drawing",
        "face",
        chooser="input:has(+ #upload)",
        elem_id="sketch-board",
    )
    photo = gr.State(None, time_to_live=UPLOADS_LIVE[1])
    with gr.Column(elem_classes="pad-actions"):
        with gr.Row():
            surprise = gr.Button("Surprise me", elem_id="surprise", min_width=100)
            upload = gr.UploadButton(
                "Start from a photo", file_types=["image"], type="binary", elem_id="upload", min_width=100
            )
        detail = gr.Slider(0, 1, 0.5, step=0.05, label="Detail of the lines", visible=False, elem_id="detail")

    def surprise_me():
        return random_doodle(random.getrandbits(32)), None, gr.Slider(visible=False)

    def lines_of_upload(data: bytes | None, detail: float):
        if data is None:
            return gr.skip()
        try:
            picture = open_picture(data)
            if is_drawing(picture):
                return normalise_drawing(picture), None, gr.Slider(visible=False)
            face = crop_face(picture, PHOTO_SIDE)
        except PictureError as error:
            gr.Warning(str(error), title="This picture cannot be used")
            return gr.skip()
        return (draw_lines(face, detail), face), face, gr.Slider(visible=True)

    def lines_again(face: Image.Image | None, detail: float):
        if face is None:
            gr.Warning("The photo is not kept any longer. Choose it again.", title="This picture cannot be used")
            return gr.skip(), None, gr.Slider(visible=False)
        return (draw_lines(face, detail), face), face, gr.skip()  # the photo too: its time begins anew

    # One after the other, or an older answer could come last.
    in_turn = {"concurrency_id": "sketch", "concurrency_limit": 1}
    shown = [board, photo, detail]
    surprise.click(surprise_me, outputs=shown, **LIVE, **in_turn)
    upload.upload(lines_of_upload, [upload, detail], shown, show_progress="minimal", **PRIVATE, **in_turn)
    detail.input(lines_again, [photo, detail], shown, **LIVE, **in_turn)


def facade_tab(predictor: Pix2PixPredictor) -> None:
    """Paint a label map; or start from an example, a surprise, or an uploaded map."""
    palette = [{"name": name, "color": color} for name, color in zip(FACADES.names, FACADES.colors)]
    board = LiveBoard(
        predictor,
        "facade",
        random_facade,
        "map",
        "building",
        palette=palette,
        chooser="input:has(+ #facade-upload)",
        elem_id="facade-board",
    )
    with gr.Row(elem_classes="pad-actions"):
        surprise = gr.Button("Surprise me", elem_id="facade-surprise", min_width=100)
        upload = gr.UploadButton(
            "Open a label map", file_types=["image"], type="binary", elem_id="facade-upload", min_width=100
        )

    def surprise_me():
        return random_facade(random.getrandbits(32))

    def open_map(data: bytes | None):
        if data is None:
            return gr.skip()
        try:
            return read_pair(open_picture(data))
        except PictureError as error:
            gr.Warning(str(error), title="This picture cannot be used")
            return gr.skip()

    surprise.click(surprise_me, outputs=board, **LIVE)
    upload.upload(open_map, upload, board, show_progress="minimal", **PRIVATE)


def segment_tab(segmenter: Segmenter) -> None:
    """Upload a photo; see what is in it."""

    def look(file: str | Path):
        photo = open_picture(file, draft=None)
        labels, painted = segmenter.look(photo, thorough=True)
        return shrink(photo, SHOWN_SIDE), labels, painted, Path(file).stem

    def show(file: str | None):
        try:
            return gr.skip(), file and look(file)
        except PictureError as error:
            gr.Warning(str(error))
        except Exception:
            logger.exception("A photo could not be segmented")
            gr.Warning("Something went wrong here. Try the photo again, or save it as PNG or JPEG first.")
        return None, None

    examples = sorted((ASSETS / "examples" / "segmentation").glob("*.jpg"))
    with gr.Row():
        with gr.Column(min_width=280):
            photo = PhotoFile(
                value=examples[0],
                sources=["upload", "webcam"],  # and what is pasted, see segments.js
                label="Photo",
                height=360,
                buttons=[],
                placeholder="Drop or paste a photo here, or click to choose one",
                elem_id="segment-photo",
            )
            gr.Examples(
                [[path] for path in examples],
                photo,
                label="Photos to start with",
                elem_id="segment-examples",
                **PRIVATE,
            )
        with gr.Column(min_width=280):
            chooser = "#segment-photo input[type=file]"
            names = [path.stem.split("_", 1)[1] for path in examples]
            view = SegmentView(
                lambda: look(examples[0]), source="photo", chooser=chooser, examples=names, elem_id="segment-view"
            )
    photo.change(show, photo, [photo, view], show_progress="minimal", show_progress_on=view, **PRIVATE)


def mix_tab(mixer: FaceMixer) -> None:
    """Mix faces: of seeds, or of one's own pictures. All of it happens on the board."""
    MixBoard(mixer, elem_id="mix-board")


# --- Learn: five lessons. Each gives what to show when it is opened: functions with their inputs and outputs.

Lesson = list[tuple[Callable, list, list]]
Twins = Callable[[str], Twin]
LOSSES = {"l1": "L1 only", "gan": "Discriminator only", "both": "Both", "no_skips": "L1 only, without skips"}
TERMS = {"reconstruction": "Reconstruction only", "kl": "Reconstruction and KL"}
FIRST_EXAMPLES = {"facades": "facades/4_balconies.png", "sketch2face": "sketch2face/long_hair.png"}
MAP_CELLS = 15  # in a row and in a column of the map of a latent space
WIDE = {"min_width": 220}  # of a control: on a phone it has a row of its own
SPREAD_GAIN = 8  # by which the spread of the answers is brightened


def learn_tab(models: dict) -> None:
    """How the systems work. models: task -> what runs it, as far as there are checkpoints."""
    intro, *texts = asset("learn.md").split("\n## ")
    drawn = {task: models[task] for task in ("facades", "sketch2face") if task in models}
    twins = functools.cache(lambda name: load_twin(ASSETS / "lessons" / f"{name}.safetensors"))
    lessons = (
        (skip_lesson, {task: model for task, model in drawn.items() if model.generator.config.skips}),
        (patch_lesson, {task: model for task, model in drawn.items() if model.discriminator}),
        (noise_lesson, drawn),
        (loss_lesson, twins),
        (latent_lesson, (twins, models.get("vaegan"))),
    )
    gr.Markdown(in_english(intro), elem_classes="learn-text")
    with gr.Tabs(overflow_behavior="wrap"):
        for number, (text, (lesson, material)) in enumerate(zip(texts, lessons)):
            title, _, body = text.partition("\n\n")
            with gr.Tab(title, elem_id=f"lesson-{number + 1}") as inner:
                gr.Markdown(in_english(body), elem_classes="learn-text")
                if not material:
                    gr.Markdown("The model of this lesson is not here yet: see its tab.")
                    continue
                steps = lesson(material)
            for step in steps:
                inner.select(*step, show_progress="minimal", **PRIVATE)


def in_english(text: str) -> str:
    """Markdown that stays English on a page in another language, and says so to screen readers."""
    return f'<div lang="en">\n\n{text}\n\n</div>'


def strip(*pictures: tuple[Image.Image, str], kind: str = "small") -> str:
    """Pictures with a caption each, side by side as far as there is room. kind: "small", "large" or "wide"."""
    figures = [
        f'<figure><img src="{to_data_url(picture, "JPEG", quality=92)}" alt="{caption}" />'
        f"<figcaption>{caption}</figcaption></figure>"
        for picture, caption in pictures
    ]
    return f'<div class="learn-strip learn-{kind}">{"".join(figures)}</div>'


def told(show: Callable) -> Callable:
    """A handler of a lesson whose net is missing or damaged tells so, and leaves the page as it is."""

    @functools.wraps(show)
    def answer(*inputs):
        try:
            return show(*inputs)
        except CheckpointError as error:
            gr.Warning(str(error), title="This lesson cannot be shown")
            return gr.skip()

    return answer


def choose_example(*tasks: str) -> gr.Dropdown:
    """A drawing or label map to look at; its value is a path below assets/examples."""
    files = [(task, file) for task in tasks for file in sorted((ASSETS / "examples" / task).glob("*.png"))]
    choices = [(f"{TASKS[task].title}: {file.stem.replace('_', ' ')}", f"{task}/{file.name}") for task, file in files]
    return gr.Dropdown(choices, value=FIRST_EXAMPLES[tasks[0]], label="Drawing", filterable=False, **WIDE)


def open_example(models: dict, example: str) -> tuple[Pix2PixPredictor, Image.Image]:
    return models[example.split("/")[0]], open_picture(ASSETS / "examples" / example)


def skip_lesson(models: dict[str, Pix2PixPredictor]) -> Lesson:
    """Switches for the skip connections, and the picture level by level."""
    levels = sorted({level for model in models.values() for level in skip_levels(model.generator.config)}, reverse=True)
    names = {level: f"{256 >> level}×{256 >> level}" for level in levels}
    ends = {levels[0]: " (innermost)", 0: " (the drawing itself)"}
    with gr.Row(elem_classes="learn-controls"):
        example = choose_example(*models)
        fill = gr.Radio(
            [("its average over the picture", "mean"), ("zeros", "zero")],
            value="mean",
            label="In their place, cut ones carry",
            **WIDE,
        )
    choices = [(names[level] + ends.get(level, ""), level) for level in levels]
    opens = gr.CheckboxGroup(choices, value=levels, label="Open skip connections, from coarse to fine")
    pictures = gr.HTML(elem_id="skip-pictures")
    gr.Markdown(
        "**From the innermost features alone to all of it**: each picture opens one connection more. In brackets: by "
        "how many of 255 levels of brightness the picture changes when this connection *alone* is cut.",
        elem_classes="learn-text",
    )
    growth = gr.HTML(elem_id="skip-levels")

    def look(example: str, opens: list[int], fill: str):
        model, drawing = open_example(models, example)
        (result,) = predict_through(model, drawing, [opens], fill)
        return strip((drawing, "The drawing"), (result, "What comes out"), kind="large")

    @functools.cache  # there are few choices, and dozens of pictures to paint for each
    def list_levels(example: str, fill: str):
        model, drawing = open_example(models, example)
        growing = [levels[: i + 1] for i in range(len(levels))]
        without = [set(levels) - {level} for level in levels]
        painted = predict_through(model, drawing, [*growing, *without], fill)
        grown, cut = painted[: len(levels)], painted[len(levels) :]
        captions = [f"{names[level]} ({difference(grown[-1], picture):.1f})" for level, picture in zip(levels, cut)]
        return strip(*zip(grown, captions))

    steps = [(look, [example, opens, fill], [pictures]), (list_levels, [example, fill], [growth])]
    for control, changed in ((opens, steps[:1]), (example, steps), (fill, steps)):
        for step in changed:
            control.change(*step, **LIVE)
    return steps


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def patch_lesson(models: dict[str, Pix2PixPredictor]) -> Lesson:
    """What the discriminator says to each patch."""
    with gr.Row(elem_classes="learn-controls"):
        example = choose_example(*models)
        shown = gr.Radio(
            [
                ("what the generator painted", "painted"),
                ("the same, blurred", "blurred"),
                ("the picture of another drawing", "another"),
            ],
            value="painted",
            label="The discriminator is shown",
            **WIDE,
        )
    view = FrameView(elem_id="patch-view")

    @functools.cache
    def look(example: str, shown: str):
        model, drawing = open_example(models, example)
        picture = model.predict(drawing)
        if shown == "blurred":
            picture = picture.filter(ImageFilter.GaussianBlur(2))
        elif shown == "another":
            files = sorted((ASSETS / "examples" / model.task.name).glob("*.png"))
            names = [file.name for file in files]
            picture = model.predict(open_picture(files[names.index(example.split("/")[1]) - 1]))
        realism = model.realism(drawing, picture)
        scores = np.asarray(realism) / 255
        size, stride, start = receptive_field(model.discriminator.config)
        whole = f"The mean of all {scores.size} patches: {scores.mean():.2f}."
        return {
            "panels": [(drawing, "The drawing"), (picture, "The picture"), (heat_map(realism, False), "The scores")],
            "cut": 1,
            "frame": {"size": size, "stride": stride, "start": start, "side": model.task.size},
            "notes": [[f"This patch: {score:.2f}. {whole}" for score in row] for row in scores],
        }

    for control in (example, shown):
        control.change(look, [example, shown], view, **LIVE)
    return [(look, [example, shown], [view])]


def noise_lesson(models: dict[str, Pix2PixPredictor]) -> Lesson:
    """Several answers to one drawing, and how far apart they are."""
    with gr.Row(elem_classes="learn-controls"):
        example = choose_example(*models)
        dropout = gr.Slider(
            0, 0.9, 0.5, step=0.1, label="Dropout", info="Share of the features that is switched off", min_width=220
        )
        seed = gr.Slider(0, 99, 0, step=1, label="Seed", info="Another number, another noise", **WIDE)
        pixels = gr.Checkbox(
            False, label="Pixel noise", info="A second source of chance, which the paper has not", min_width=220
        )
    answers = gr.HTML(elem_id="noise-answers")
    words = gr.Markdown("", elem_classes="learn-text")

    def look(example: str, dropout: float, seed: int, pixels: bool):
        model, drawing = open_example(models, example)
        pictures = noisy_answers(model, drawing, 4, int(seed), dropout, pixels)
        levels = spread(pictures)
        apart = Image.fromarray((levels * SPREAD_GAIN).clip(0, 255).astype(np.uint8))
        captions = [f"Answer {i}" for i in range(1, 5)]
        return (
            strip(*zip(pictures, captions), (apart, f"Where they differ, {SPREAD_GAIN} times brighter"), kind="large"),
            "How far the four answers lie apart at a pixel, on average (standard deviation): "
            f"**{levels.mean():.1f} of 255 levels**.",
        )

    inputs, outputs = [example, dropout, seed, pixels], [answers, words]
    for control in inputs:
        control.change(look, inputs, outputs, **LIVE)
    return [(look, inputs, outputs)]


def loss_lesson(twins: Twins) -> Lesson:
    """Four small nets that differ in what they were asked for."""
    example = choose_example("facades")
    results = gr.HTML(elem_id="loss-results")
    figures = gr.Markdown("", elem_classes="learn-figures")

    @told
    @functools.cache
    def look(example: str):
        nets = {name: twins(name) for name in LOSSES}
        drawing = open_picture(ASSETS / "examples" / example)
        painted = {name: net.model.predict(drawing).resize((256, 256)) for name, net in nets.items()}
        rows = [
            f"| {LOSSES[name]} | {net.figures['l1']:.3f} | {net.figures['sharpness_ratio']:.2f} | "
            f"{net.figures['sliced_wasserstein']:.0f} |"
            for name, net in nets.items()
        ]
        head = "| | Difference (L1): less is closer | Sharpness: photos have 1 | Details: less is more like photos |"
        said = f"Each was trained on {nets['both'].images:,} views of 400 buildings. Against the photos of 70 others:\n"
        pictures = [(drawing, "The label map"), *((painted[name], label) for name, label in LOSSES.items())]
        return strip(*pictures, kind="large"), "\n".join([said, head, "|---|---|---|---|", *rows])

    example.change(look, example, [results, figures], **LIVE)
    return [(look, [example], [results, figures])]


def latent_lesson(material: tuple[Twins, FaceMixer | None]) -> Lesson:
    """Two small VAEs with a latent of two numbers, and the shipped one with its 256."""
    twins, mixer = material
    with gr.Row(elem_classes="learn-controls"):
        name = gr.Radio(
            [(label, name) for name, label in TERMS.items()],
            value="kl",
            label="Its loss asks for",
            min_width=220,
        )
        wide = gr.Radio(
            [("the prior", False), ("the dots", True)], value=False, label="The map reaches as far as", min_width=220
        )
    view = FrameView(elem_id="latent-view")
    words = gr.Markdown("", elem_classes="learn-text")
    gr.Markdown(
        "**Draws from the prior**, and below them a walk from one face to another: both are encoded, and the decoder "
        "draws what lies between.",
        elem_classes="learn-text",
    )
    seed = gr.Slider(0, 99, 0, step=1, label="Seed: another number, other faces")
    small = gr.HTML(elem_id="latent-small")
    if mixer:
        text = (
            f"**The VAE-GAN of the Mix tab has {mixer.latent} numbers**, and a discriminator asks for sharp lines. "
            "Its KL is weak, so the prior is a poor guess of where faces lie, and the app draws from a mixture of "
            "bell curves (Gaussians) that was fitted to the encoded faces. For the same reason the plain average of "
            "two faces lies where no face does: the Mix tab moves it out."
        )
        gr.Markdown(in_english(text), elem_classes="learn-text")
    shipped = gr.HTML(elem_id="latent-shipped")

    @told
    def look(name: str, wide: bool):
        twin = twins(name)
        half = max(3.0, 1.1 * float(np.quantile(np.abs(twin.codes), 0.99))) if wide else 3.0
        points = plane(half, MAP_CELLS)
        atlas = tile(twin.model.decode(points), MAP_CELLS, gap=0)
        cell = atlas.width // MAP_CELLS
        notes = [f"z = ({x:.1f}, {y:.1f})" for x, y in points]
        dots = draw_codes(twin.codes, half, atlas.width)
        value = {
            "panels": [(dots, "Real faces, encoded"), (atlas, "What the decoder draws there")],
            "cut": 1,
            "frame": {"size": cell, "stride": cell, "start": 0, "side": atlas.width},
            "notes": [notes[i : i + MAP_CELLS] for i in range(0, len(notes), MAP_CELLS)],
        }
        return value, describe(twin.figures)

    @told
    def draw(seed: int):
        prior = np.random.default_rng(int(seed))
        codes = prior.standard_normal((8, 2))
        faces = mixer.decode(mixer.sample(2, seed=int(seed))) if mixer else []
        strips = []
        for name, label in TERMS.items():
            model = twins(name).model
            walk = model.interpolate(*map(model.encode, faces), steps=8, spherical=False) if faces else []
            strips.append((tile(model.decode(codes) + walk, 8), label))
        return strip(*strips, kind="wide"), draw_shipped(mixer, prior, int(seed)) if mixer else ""

    steps = [(look, [name, wide], [view, words]), (draw, [seed], [small, shipped])]
    for control, step in ((name, steps[0]), (wide, steps[0]), (seed, steps[1])):
        control.change(*step, **LIVE)
    return steps


def describe(figures: dict[str, float]) -> str:
    """The figures of a small VAE in words."""
    return (
        f"On 400 faces that it was not trained on: their numbers are **{figures['kl']:.1f} nats** away from the prior "
        f"(KL; 0 would be the bell curve itself). What comes back is off by {figures['l1']:.3f} (L1), and has "
        f"{figures['sharpness_ratio']:.0%} of the sharpness. "
        f"Draws from the prior differ from one another by **{figures['prior_diversity']:.0%}** of "
        f"what real faces do; their details are {figures['prior_sliced_wasserstein']:.0f} away from real ones."
    )


def draw_shipped(mixer: FaceMixer, prior: np.random.Generator, seed: int) -> str:
    """Draws from the prior and from the mixture, two faces with both of their averages, the KL of each unit."""
    faces = mixer.sample(8, seed=seed)
    pair = faces[:2]
    both = np.stack([*pair, pair.mean(axis=0), mixer.blend(pair, [1, 1])])
    units = np.sort(kl_per_unit(mixer, mixer.decode(faces)))[::-1]
    noise = prior.standard_normal((8, mixer.latent))
    return strip(
        (tile(mixer.decode(noise), 4), "Draws from the prior N(0, 1)"),
        (tile(mixer.decode(faces), 4), "Draws from the fitted mixture"),
        (tile(mixer.decode(both), 4), "Two faces; their plain average; the same, moved out"),
        (
            draw_bars(units),
            f"KL of each of the {mixer.latent} numbers, sorted: {units.sum():.0f} nats in all",
        ),
        kind="wide",
    )


class Page(gr.Blocks):
    """Tells in a sentence what is wrong with what was sent, where Gradio prints a traceback."""

    async def preprocess_data(self, *arguments, **options) -> list:
        try:
            return await super().preprocess_data(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            logger.warning("Not understood: %.300r", error)
            raise gr.Error("This was not understood. Check what you send.", print_exception=False) from error


class Headers:
    """ASGI middleware: what a browser shall refuse on the pages of this app. Hugging Face shows them in a frame."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def missing_tab(task: Task, error: CheckpointError) -> None:
    """The tab of a task without a usable checkpoint: what is wrong, and how to get one."""
    gr.Markdown(
        f"### This model is not here yet\n\n{error}\n\n"
        f"Train it on pictures of your own:\n\n```bash\n{task.how_to_train}\n```",
        elem_id=f"missing-{task.name}",
    )


# --- For other programs: each function becomes an endpoint and an MCP tool, whose users read its docstring ------


def sketch_api(predictor: Pix2PixPredictor) -> list[Callable]:
    def sketch2face(
        drawing: Upload, variants: Variants = 0, seed: Seed = 0, detail: Share = 0.5
    ) -> tuple[gr.FileData, list[gr.FileData]]:
        """Turn a line drawing of a face into a picture of a face that nobody has, 256x256.

        Args:
            drawing: Dark lines on light paper or the reverse; or a photo of one face, whose lines are drawn first.
            variants: How many more answers to the same drawing, 0 to 16.
            seed: Of the variants, 0 to 2147483647. The same seed gives the same variants.
            detail: Of the lines of a photo, from 0, only the outlines, to 1, hair and wrinkles too.
        Returns:
            The face as PNG
            and a list of its variants
        """
        return translate(predictor, read_drawing(read_upload(drawing), detail), "face", variants, seed)

    def lines(photo: Upload, detail: Share = 0.5) -> gr.FileData:
        """Turn a photo of a face into a line drawing, 512x512, which sketch2face understands.

        Args:
            photo: One face that looks into the camera, upright and in even light.
            detail: From 0, only the outlines, to 1, hair and wrinkles too.
        Returns:
            Black lines on white, as PNG
        """
        return write_picture(draw_lines(crop_face(read_upload(photo), PHOTO_SIDE), detail), "lines")

    return [sketch2face, lines]


def facade_api(predictor: Pix2PixPredictor) -> list[Callable]:
    def facades(label_map: Upload, variants: Variants = 0, seed: Seed = 0) -> tuple[gr.FileData, list[gr.FileData]]:
        """Turn a label map of a facade into a photo of a building that stands nowhere, 256x256.

        Args:
            label_map: Flat areas in the colours of the CMP facade classes; or such a map and its photo side by side.
            variants: How many more answers to the same map, 0 to 16.
            seed: Of the variants, 0 to 2147483647. The same seed gives the same variants.
        Returns:
            The building as PNG
            and a list of its variants
        """
        return translate(predictor, read_pair(read_upload(label_map))[0], "building", variants, seed)

    return [facades]


def segment_api(segmenter: Segmenter) -> list[Callable]:
    def segmentation(photo: Upload, fast: bool = False) -> tuple[gr.FileData, gr.FileData, list[dict]]:
        """Say which of the 21 classes of Pascal VOC each pixel of a photo shows.

        The model that ships knows cats, dogs, sheep, horses, cows and people; of the others it finds next to nothing.

        Args:
            photo: Of any size and shape, up to 50 megapixels.
            fast: Look at the photo at one size instead of three: sooner, and a little worse.
        Returns:
            The classes as PNG with VOC's palette, of the photo's size
            the photo under their colours
            and for each class its number, name, colour and share of the pixels, the largest first
        """
        picture = read_upload(photo, draft=None)
        labels = segmenter.segment(picture, thorough=not fast)
        overlay = shrink(lay_over(picture, labels), SHOWN_SIDE)
        return write_picture(VOC.to_indexed(labels), "classes"), write_picture(overlay, "overlay"), legend(labels)

    return [segmentation]


def mix_api(mixer: FaceMixer) -> list[Callable]:
    def mix(
        first: Upload = "",
        second: Upload = "",
        third: Upload = "",
        seeds: list[Seed] | None = None,
        weights: list[Weight] | None = None,
    ) -> gr.FileData:
        """Mix drawn faces, of pictures and of seeds, into one anime face between them, 96x96.

        One seed alone is a new face.

        Args:
            first: A drawn face; the square in its middle is used. Leave it out to mix faces of seeds alone.
            second: Another drawn face.
            third: Another drawn face.
            seeds: Whole numbers, 0 to 2147483647. Each stands for a face that the model makes up.
            weights: One number, 0 to 1000000, for each face, pictures before seeds; only their proportions count.
        Returns:
            The face as PNG
        """
        uploads, seeds = [upload for upload in (first, second, third) if upload], seeds or []
        count = len(uploads) + len(seeds)
        if not 1 <= count <= MOST_FACES:
            raise RecipeError(f"There are {count} faces to mix; give 1 to {MOST_FACES} pictures and seeds.")
        if weights and len(weights) != count:
            raise RecipeError(f"There are {count} faces and {len(weights)} weights; give one each, or none.")
        latents = [mixer.encode(read_upload(upload)) for upload in uploads]
        latents += [mixer.sample(1, seed)[0] for seed in seeds]
        return write_picture(mixer.mix(latents, weights or [1] * count), "face", **disclosure("PNG"))

    return [mix]


def translate(
    predictor: Pix2PixPredictor, source: Image.Image, name: str, variants: int, seed: int
) -> tuple[dict, list[dict]]:
    """The answer to a source, and its variants, as files of this name."""
    more = predictor.predict_variants(source, variants, seed) if variants else []
    first, *others = [
        write_picture(picture, name, **disclosure("PNG")) for picture in (predictor.predict(source), *more)
    ]
    return first, others


def read_upload(file: dict, draft: int | None = 2048) -> Image.Image:
    """The picture in an uploaded file. draft: see `open_picture`. Raises PictureError."""
    # Gradio has made sure that a file with its mark was uploaded; what has no mark could be any path of this computer.
    if not is_file_obj_with_meta(file):
        raise PictureError(
            'This is no picture. Upload one to gradio_api/upload and send {"path": what came back, '
            '"meta": {"_type": "gradio.FileData"}}; in Python, send handle_file("picture.png").'
        )
    return open_picture(file["path"], draft=draft)


def write_picture(picture: Image.Image, name: str, **options) -> dict:
    """A PNG for a visitor to fetch, deleted after a while like what they upload; as the dict of a `gr.FileData`.

    options: of Pillow's `save`.
    """
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return gr.FileData(path=save_bytes_to_cache(file.getvalue(), f"{name}.png", get_upload_folder())).model_dump()


def publish(function: Callable, work: Batcher) -> None:
    """Offers a function to other programs under its own name. Through `work` it waits for the others of its kind."""
    checked, names = validate_call(function), inspect.signature(function).parameters

    @functools.wraps(function)
    async def answer(*arguments):
        try:
            return await work(functools.partial(checked, **dict(zip(names, arguments))))
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
            raise gr.Error("; ".join(wrong) + ".", print_exception=False) from error
        except (PictureError, RecipeError, BusyError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            logger.exception("%s could not answer", function.__name__)
            raise gr.Error("Something went wrong here. Try another picture.", print_exception=False) from error

    # Of those who queue one at a time comes here, so that the places in `work` are left to MCP, which does not queue.
    gr.api(answer, queue=False, concurrency_limit=1, concurrency_id="api")


TABS = {
    "sketch2face": (Pix2PixPredictor, sketch_tab, sketch_api),
    "facades": (Pix2PixPredictor, facade_tab, facade_api),
    "segmentation": (Segmenter, segment_tab, segment_api),
    "vaegan": (FaceMixer, mix_tab, mix_api),
}


def open_shared_tab(request: gr.Request):
    """A link to a mix opens its tab; the board there reads the rest."""
    return gr.Tabs(selected="vaegan") if "mix" in request.query_params else gr.skip()


def create_demo(checkpoints: Path = ASSETS / "checkpoints", models: dict[str, Path] | None = None) -> gr.Blocks:
    """Builds the page. checkpoints: a folder with `<task>.safetensors`, such as a run folder of train.

    models: of some tasks, by name, the file to take instead.
    """
    files = models or {}
    with Page(title="Draw a line, see a face", delete_cache=UPLOADS_LIVE, analytics_enabled=False) as demo:
        gr.Markdown(
            "# Draw a line, see a face\n"
            "Small networks make up faces and buildings while you draw, and blend faces while you slide. "
            "Only what is in photos is real.",
            elem_id="title",
        )
        shown, endpoints = {}, []
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # a phone would hide the last ones in a menu
            for name, (model, tab, api) in TABS.items():
                task = TASKS[name]
                with gr.Tab(task.title, id=name):
                    try:
                        loaded = model.from_checkpoint(files.get(name, Path(checkpoints) / f"{name}.safetensors"))
                        if loaded.task is not task:
                            raise CheckpointError(f"{name}.safetensors is for {loaded.task.name}. Rename it.")
                    except CheckpointError as error:
                        logger.warning("%s", error)
                        missing_tab(task, error)
                    else:
                        tab(loaded)
                        shown[name] = loaded
                        endpoints += api(loaded)
            with gr.Tab("Learn", id="learn"):
                learn_tab(shown)
        work = one_by_one(16)
        for endpoint in endpoints:
            publish(endpoint, work)
        demo.load(open_shared_tab, outputs=tabs, **LIVE)
    return demo


def make_theme() -> gr.themes.Base:
    """Gradio's "Soft", its pale texts darker: a contrast of 4.5:1 at least (WCAG AA). Dark mode: see style.css."""
    return gr.themes.Soft().set(
        body_text_color_subdued="*neutral_600",
        block_title_text_color="*primary_700",
        block_label_text_color="*primary_700",
        checkbox_label_background_fill_selected="*primary_600",
        color_accent="*primary_600",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
    )


def read_languages() -> dict[str, dict[str, str]]:
    """What the page says in other languages: language, as in `lang` of HTML -> English -> translation."""
    files = sorted((ASSETS / "languages").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def launch(
    demo: gr.Blocks,
    upload: float = MAX_UPLOAD,
    rate: float = MAX_RATE,
    waiting: int = MAX_WAITING,
    connections: int = MAX_CONNECTIONS,
    **options,
) -> tuple:
    """Starts the server with the looks and limits of this app.

    upload: MB of a file. rate: requests a second from one address. waiting: for a drawing, for a blend, and in
    Gradio's own queue; those for rarer work, such as films, are shorter and stay as they are.
    connections: see `Limits`. options: those of `gr.Blocks.launch`.
    """
    demo.queue(max_size=waiting)
    for block in demo.blocks.values():
        if isinstance(block, (LiveBoard, MixBoard)):
            (block.predict if isinstance(block, LiveBoard) else block.decode).waiting = waiting
    if options.get("mcp_server"):  # it keeps pictures in a folder that it was told of before `upload_folder`
        importlib.import_module("gradio.mcp").DEFAULT_TEMP_DIR = get_upload_folder()
    if get_space():  # its proxies say whom they ask for; FORWARDED_ALLOW_IPS is uvicorn's
        os.environ.setdefault("FORWARDED_ALLOW_IPS", PRIVATE_NETWORKS)
    limits = Middleware(
        Limits,
        upload=int(upload * 1e6) + 10_000,  # the file, and what is around it
        rate=rate,
        connections=connections,
        sockets=lambda: demo.server.server_state.connections if demo.is_running else (),
    )
    started = demo.launch(
        theme=make_theme(),
        css_paths=[ASSETS / "style.css"],
        i18n=gr.I18n(**read_languages()),
        head=f"<script>{asset('language.js')}</script>",
        max_file_size=int(upload * 1e6),
        footer_links=["api", "settings"],
        run_history=False,  # of what visitors have done, in a browser that others may use
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        app_kwargs={"middleware": [Middleware(Headers), limits]},
        _frontend=False,  # no request to itself, which Gradio gives up on after three seconds of a busy machine
        **options,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each piece of garbage
    return started


@contextmanager
def upload_folder() -> Iterator[None]:
    """A folder for the uploads of this run alone, unless somebody has chosen one: what another run left behind, cut off
    before it could delete it, is never served. The page must be made in it too, since its examples go there."""
    if "GRADIO_TEMP_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="uploads-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


def serve(demo: gr.Blocks, **options) -> None:
    """As `launch`, until somebody stops it. The page is open, and draws, while the networks are not yet compiled."""
    launch(demo, prevent_thread_lock=True, **options)
    time.sleep(SETTLE)
    for block in list(demo.blocks.values()):
        if isinstance(block, (LiveBoard, MixBoard, SegmentView)):
            try:
                block.warm_up()
            except Exception:
                logger.exception("%s is slower than it could be", block.elem_id)
    threading.Thread(target=stay_small, daemon=True).start()
    demo.block_thread()


def stay_small() -> None:
    """Crowds come and go: what the last one needed goes back to the system, which takes a millisecond."""
    while True:
        give_back_memory()
        time.sleep(10)


def allow_zero_gpu() -> None:
    """A ZeroGPU Space stops at its start unless some function may use the GPU, so one may; the small networks stay on
    the CPU, which answers before a GPU could be had."""
    import spaces

    spaces.GPU(duration=1)(may_use_gpu)


def may_use_gpu() -> None:
    """Never called."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python app.py",
        description="Draw a line, see a face; paint a facade, see the building; show a photo; mix faces.",
    )
    parser.add_argument("--checkpoints", type=Path, default=ASSETS / "checkpoints", metavar="DIR")
    place = "another checkpoint for one task: FILE, or USER/REPO on the Hugging Face Hub; may be repeated"
    parser.add_argument("--model", type=hub.read_model, action="append", default=[], metavar="TASK=PLACE", help=place)
    parser.add_argument("--host", default=None, help="default: only this computer; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=None)
    limits = {
        "upload": (float, MAX_UPLOAD, "MB", "size of a file"),
        "rate": (float, MAX_RATE, "N", "requests a second from one address; more wait their turn, then are refused"),
        "waiting": (int, MAX_WAITING, "N", "visitors who wait for their drawing or blend, or for a click"),
        "connections": (int, MAX_CONNECTIONS, "N", "requests open at once; one address may have half of them"),
    }
    for name, (kind, default, unit, text) in limits.items():
        text += f", at most (default: {default})"
        parser.add_argument(f"--max-{name}", type=kind, default=default, metavar=unit, dest=name, help=text)
    parser.add_argument("--mcp", action="store_true", help="offer the endpoints as MCP tools too")
    options = parser.parse_args(arguments)
    if options.mcp and importlib.util.find_spec("mcp") is None:
        parser.error('--mcp needs another package. Install it: pip install "gradio[mcp]"')
    for name in limits:
        if not 0 < getattr(options, name) < math.inf:
            parser.error(f"--max-{name} must be above 0")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    with upload_folder():
        demo = create_demo(options.checkpoints, {task: file for task, _, file in options.model})
        if os.environ.get("SPACES_ZERO_GPU") == "true":
            allow_zero_gpu()
        serve(
            demo,
            server_name=options.host,
            server_port=options.port,
            mcp_server=options.mcp or None,
            **{name: getattr(options, name) for name in limits},
        )


if __name__ == "__main__":
    main()
