"""The web app. Draw a line, see a face; paint a facade, see the building; show a photo, see what is in it; slide
weights, watch faces blend.

python app.py [--checkpoints DIR] [--host HOST] [--port PORT]
"""

import argparse
import asyncio
import base64
import functools
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from string import Template

import gradio as gr
import numpy as np
from gradio.components.base import server
from PIL import Image, ImageOps

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter
from gan_core.batching import Batcher, BusyError
from gan_core.checkpoint import CheckpointError
from gan_core.facades import random_facade, read_pair
from gan_core.faces import crop_face
from gan_core.film import make_films
from gan_core.image import PictureError, open_picture, read_data_url, shrink, tile, to_data_url
from gan_core.lineart import PHOTO_SIDE, draw_lines, is_drawing, normalise_drawing, random_doodle
from gan_core.palette import FACADES, VOC
from gan_core.recipe import (
    LARGEST_SHIFT,
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
from gan_core.segmenter import class_shares
from gan_core.tasks import TASKS, Task

ROOT = Path(__file__).parent
ASSETS = ROOT / "assets"
MAX_UPLOAD = "20mb"
UPLOADS_LIVE = (60, 600)  # seconds: each minute, files that are older than ten are deleted
SHOWN_SIDE = 1600  # at most, of a photo as it is shown under its classes
# Seeds of the faces to choose from, picked by eye; a mix starts with the first three.
GALLERY = [15, 28, 65, 73, 113, 106, 9, 11, 62, 45, 41, 17, 58, 54, 7, 82, 29, 76, 34, 92, 83, 61, 117, 102]
SHEET = 10  # blends in a row and in a column
FRAMES = 120  # of a film
PRIVATE = {"api_visibility": "private"}
LIVE = {"show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE}

logger = logging.getLogger(__name__)


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

    paper: name of its files in assets/, "sketchpad" or "facade". source, result: what one draws and sees, in a word.
    options: those of gr.HTML; what it does not know becomes a property that the JavaScript can read.
    """

    def __init__(self, predictor: Pix2PixPredictor, paper: str, source: str, result: str, **options):
        self.predictor = predictor
        self.example_folder = ASSETS / "examples" / predictor.task.name
        self.predict = Batcher(predictor.predict_batch)
        guide, tools = (ASSETS / f"{paper}.html").read_text().split("<!-- tools -->")
        board = Template((ASSETS / "board.html").read_text())
        super().__init__(
            html_template=board.substitute(guide=guide, tools=tools, source=source, result=result),
            js_on_load="".join((ASSETS / f"{name}.js").read_text() for name in ("live", "board", paper)),
            apply_default_css=False,
            storage=f"board-{predictor.task.name}",
            source=source,
            result=result,
            **options,
        )

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
        answer = {"picture": to_data_url(picture, "JPEG", quality=92)}
        if request.get("realism"):
            realism = await asyncio.to_thread(self.predictor.realism, drawing, picture)
            answer["realism"] = to_data_url(heat_map(realism), "PNG")
        return answer

    @explained
    async def variants(self, request: dict) -> dict:
        """Four answers to one drawing. request: `drawing` as data URL, `seed`."""
        drawing, seed = read_data_url(request.get("drawing")), read_seed(request.get("seed", 0))
        pictures = await asyncio.to_thread(self.predictor.predict_variants, drawing, 4, seed=seed)
        return {"pictures": [to_data_url(picture, "JPEG", quality=92) for picture in pictures]}

    @server
    def examples(self, request=None) -> list[dict]:
        """Drawings to start from."""
        files = sorted(self.example_folder.glob("*.png"))
        return [
            {"name": file.stem.replace("_", " "), "drawing": to_data_url(open_picture(file), "PNG")} for file in files
        ]


class MixBoard(gr.HTML):
    """Faces with a weight each, and the face between them, which follows while a slider moves.

    The page keeps what its visitor mixes and sends it with each question: nothing here belongs to anybody.
    """

    def __init__(self, mixer: FaceMixer, **options):
        self.mixer = mixer
        self.decode = Batcher(mixer.decode, largest=32)
        self.work = Batcher(lambda jobs: [job() for job in jobs], largest=1, waiting=32)
        # A film takes seconds: in a queue of its own nobody else waits for it.
        self.filming = Batcher(lambda jobs: [job() for job in jobs], largest=1, waiting=8)
        self.film_shares: dict[str, float] = {}  # what is done of the films that are being made
        super().__init__(
            html_template=(ASSETS / "mixer.html").read_text(),
            js_on_load="".join((ASSETS / f"{name}.js").read_text() for name in ("live", "mixer")),
            apply_default_css=False,
            storage="board-vaegan",
            source="mix",
            directions=name_directions(mixer),
            limits={"faces": MOST_FACES, "seed": MAX_SEED, "shift": LARGEST_SHIFT, "frames": FRAMES},
            gallery=[
                {"seed": seed, "picture": thumbnail(mixer.decode(read_face(mixer, {"seed": seed})))} for seed in GALLERY
            ],
            **options,
        )

    @explained
    async def blend(self, request: dict) -> dict:
        """While a slider moves. request: see `gan_core.recipe.read_recipe`."""
        (latent,) = read_recipe(self.mixer, request).blend(self.mixer)
        return {"picture": to_data_url(await self.decode(latent), "PNG")}

    @explained
    async def faces(self, request: dict) -> dict:
        """Thumbnails. request: `faces`."""
        latents = read_faces(self.mixer, request.get("faces"), MOST_FACES)
        pictures = await asyncio.gather(*map(self.decode, latents))
        return {"pictures": [thumbnail(picture) for picture in pictures]}

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
        return {"picture": to_data_url(sheet, "PNG", compress_level=1), "weights": weights.tolist()}

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
    return to_data_url(face, "JPEG", quality=90)


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def heat_map(realism: Image.Image) -> Image.Image:
    """Violet where a patch gives the picture away, yellow where it passes for a photo; relative within the picture."""
    spread = ImageOps.autocontrast(realism, cutoff=2)
    colours = ImageOps.colorize(spread, black="#4c0d8c", mid="#e0457b", white="#ffe45e")
    return colours.resize((256, 256), Image.Resampling.BICUBIC)


class PhotoFile(gr.Image):
    """Takes a photo by upload, paste or webcam, and hands its file on as it is: `open_picture` says what is wrong."""

    is_template = True  # in the browser it is the image component that it derives from

    def preprocess(self, payload) -> str | None:
        return payload and payload.path


class SegmentView(gr.HTML):
    """A photo under the classes that were found in it, with outlines, names under the pointer and a legend.

    As an output it takes None or (photo, labels `(H, W)`, palette picture as painted, name for its downloads).
    """

    def __init__(self, **options):
        super().__init__(
            html_template=(ASSETS / "segments.html").read_text(),
            js_on_load="".join((ASSETS / f"{name}.js").read_text() for name in ("live", "segments")),
            apply_default_css=False,
            **options,
        )

    def postprocess(self, value: tuple[Image.Image, np.ndarray, Image.Image, str] | None) -> dict | None:
        if value is None:
            return None
        photo, labels, painted, name = value
        return {
            "name": name,
            "photo": to_data_url(shrink(photo, SHOWN_SIDE), "JPEG", quality=90),
            "map": to_data_url(VOC.to_indexed(labels), "PNG"),
            "painted": to_data_url(painted, "PNG"),
            "classes": [
                {"number": number, "name": VOC.names[number], "color": VOC.colors[number], "share": share}
                for number, share in class_shares(labels).items()
            ],
            "background": VOC.names.index("background"),
        }


def sketch_tab(predictor: Pix2PixPredictor) -> None:
    """Draw a face; or start from an example, a surprise, or the lines of a photo."""
    board = LiveBoard(predictor, "sketchpad", "drawing", "face", elem_id="sketch-board")
    photo = gr.State(None)
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
        return gr.skip() if face is None else (draw_lines(face, detail), face)

    surprise.click(surprise_me, outputs=[board, photo, detail], **LIVE)
    upload.upload(lines_of_upload, [upload, detail], [board, photo, detail], show_progress="minimal", **PRIVATE)
    detail.input(lines_again, [photo, detail], board, **LIVE)


def facade_tab(predictor: Pix2PixPredictor) -> None:
    """Paint a label map; or start from an example, a surprise, or an uploaded map."""
    palette = [{"name": name, "color": color} for name, color in zip(FACADES.names, FACADES.colors)]
    board = LiveBoard(predictor, "facade", "map", "building", palette=palette, elem_id="facade-board")
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
        labels = segmenter.segment(photo, thorough=True)
        return photo, labels, segmenter.palette_picture(photo), Path(file).stem

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
            gr.Examples([[path] for path in examples], photo, label="Photos to start with", **PRIVATE)
        with gr.Column(min_width=280):
            chooser = "#segment-photo input[type=file]"
            view = SegmentView(value=look(examples[0]), chooser=chooser, elem_id="segment-view")
    photo.change(show, photo, [photo, view], show_progress="minimal", show_progress_on=view, **PRIVATE)


def mix_tab(mixer: FaceMixer) -> None:
    """Mix faces: of seeds, or of one's own pictures. All of it happens on the board."""
    MixBoard(mixer, elem_id="mix-board")


def missing_tab(task: Task, error: CheckpointError) -> None:
    """The tab of a task without a usable checkpoint: what is wrong, and how to get one."""
    gr.Markdown(
        f"### This model is not here yet\n\n{error}.\n\n"
        f"Train it on pictures of your own:\n\n```bash\n{task.how_to_train}\n```",
        elem_id=f"missing-{task.name}",
    )


TABS = {
    "sketch2face": (Pix2PixPredictor, sketch_tab),
    "facades": (Pix2PixPredictor, facade_tab),
    "segmentation": (Segmenter, segment_tab),
    "vaegan": (FaceMixer, mix_tab),
}


def open_shared_tab(request: gr.Request):
    """A link to a mix opens its tab; the board there reads the rest."""
    return gr.Tabs(selected="vaegan") if "mix" in request.query_params else gr.skip()


def create_demo(checkpoints: Path = ASSETS / "checkpoints") -> gr.Blocks:
    """Builds the page. checkpoints: a folder with `<task>.safetensors`, such as a run folder of train."""
    with gr.Blocks(title="Draw a line, see a face", delete_cache=UPLOADS_LIVE) as demo:
        gr.Markdown(
            "# Draw a line, see a face\n"
            "Nobody here is real and no building stands: small networks make them up while you draw, "
            "and blend them while you slide.",
            elem_id="title",
        )
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # a phone would hide the last ones in a menu
            for name, (model, tab) in TABS.items():
                task = TASKS[name]
                with gr.Tab(task.title, id=name):
                    try:
                        loaded = model.from_checkpoint(Path(checkpoints) / f"{name}.safetensors")
                        if loaded.task is not task:
                            raise CheckpointError(f"{name}.safetensors is a checkpoint for {loaded.task.name}")
                    except CheckpointError as error:
                        logger.warning("%s", error)
                        missing_tab(task, error)
                    else:
                        tab(loaded)
        demo.load(open_shared_tab, outputs=tabs, **LIVE)
    return demo


def launch(demo: gr.Blocks, **options) -> tuple:
    """Starts the server with the looks and limits of this app. options: those of `gr.Blocks.launch`."""
    return demo.launch(
        theme=gr.themes.Soft(),
        css_paths=[ASSETS / "style.css"],
        max_file_size=MAX_UPLOAD,
        footer_links=["settings"],
        **options,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python app.py",
        description="Draw a line, see a face; paint a facade, see the building; show a photo; mix faces.",
    )
    parser.add_argument("--checkpoints", type=Path, default=ASSETS / "checkpoints", metavar="DIR")
    parser.add_argument("--host", default=None, help="default: only this computer; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=None)
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    launch(create_demo(options.checkpoints), server_name=options.host, server_port=options.port)


if __name__ == "__main__":
    main()
