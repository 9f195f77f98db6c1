"""Picture in, picture out. Torch stays hidden in here, and so does what makes it fast."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.folding import fold_norms, name_instance_norms, shuffle_pixels
from gan_core.image import fit, to_pictures, to_rgb, to_tensor
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.runtime import compile_graph
from gan_core.tasks import TASKS, Task
from gan_core.unet import Noise, UNetConfig, UNetGenerator

MAX_VARIANTS = 16
OTHERS = {"segmentation": "Segmenter", "vaegan": "FaceMixer"}  # tasks that a class of their own runs


class Pix2PixPredictor:
    """Turns source pictures into target pictures with a trained generator.

    For people: `Pix2PixPredictor.from_checkpoint(path)`. For tests: the networks themselves.
    All methods may be called from several threads at once, and are deterministic.

    discriminator: needed by `realism` only. adversarial: the loss it was trained with.
    """

    _seeding = threading.Lock()  # of all predictors: torch has one generator of random numbers for all threads

    def __init__(
        self,
        generator: UNetGenerator,
        task: Task,
        discriminator: PatchDiscriminator | None = None,
        adversarial: str = "bce",
        device: str | torch.device = "cpu",
    ):
        self.task, self.adversarial, self.device = task, adversarial, torch.device(device)
        self.dtype = torch.bfloat16 if has_bfloat16(self.device) else torch.float32
        self.channels = generator.config.in_channels
        self.generator = ready(generator, self.device, self.dtype)
        self._generate: Callable[[Tensor], Tensor] = lambda sources: self.generator(self._arrange(sources))
        self.discriminator = discriminator and ready(discriminator, self.device, self.dtype)
        self.noisy_generator = share_weights(self.generator)
        for module in self.noisy_generator.modules():
            if isinstance(module, (nn.Dropout, Noise)):
                module.train()

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> "Pix2PixPredictor":
        """Raises CheckpointError if the file is missing, damaged, too new or for no pix2pix task."""
        loaded = checkpoint.load(path)
        if loaded.task not in TASKS:
            raise CheckpointError(f"{path} is a checkpoint for {loaded.task}; use one of {', '.join(TASKS)}.")
        if loaded.task in OTHERS:
            other = OTHERS[loaded.task]
            raise CheckpointError(f"{path} is a checkpoint for {loaded.task}. Open it by gan_core.{other}.")
        generator = loaded.build("generator", UNetGenerator, UNetConfig)
        discriminator = None
        if "discriminator" in loaded.weights:
            discriminator = loaded.build("discriminator", PatchDiscriminator, PatchGANConfig)
        recipe = loaded.facts.get("recipe")
        adversarial = recipe.get("adversarial", "bce") if isinstance(recipe, dict) else "bce"
        return cls(generator, TASKS[loaded.task], discriminator, adversarial, device)

    def accelerate(self, typical: Sequence[Image.Image] = ()) -> bool:
        """Compiles the generator for this processor, in a second or two; returns whether that could be done.

        Until then, and where it cannot be done (on a GPU, or without OpenVINO), PyTorch answers. What `predict` gives
        changes by rounding: at most a level of 255 in float32. May run in a thread beside predictions.

        typical: a dozen or two of source pictures such as will be asked for. With them convolutions are done in 8-bit
        integers, which takes half to a quarter of the time; what `predict` gives then changes by one or two levels in
        the mean, more at single pixels of hair.
        """
        example = torch.zeros(1, self.channels, self.task.size, self.task.size)
        graph = compile_on_cpu(self.generator, example, self._read(typical) if typical else None)
        self._generate = graph or self._generate
        return graph is not None

    def predict(self, picture: Image.Image) -> Image.Image:
        """picture: any mode and size. Returns RGB of the task's size."""
        return self.predict_batch([picture])[0]

    @torch.inference_mode()
    def predict_batch(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """As `predict`, for several pictures in one pass of the network."""
        if not pictures:
            return []
        return to_pictures(self._generate(self._read(pictures)))

    @torch.inference_mode()
    def predict_variants(self, picture: Image.Image, count: int = 4, seed: int = 0) -> list[Image.Image]:
        """Several answers to one picture; dropout at test time is the noise (pix2pix, section 3.1),
        beside the pixel noise of nets that have it.

        The same seed gives the same variants. Raises ValueError if count is not in 1..MAX_VARIANTS.
        """
        if not 1 <= count <= MAX_VARIANTS:
            raise ValueError(f"count is {count}; between 1 and {MAX_VARIANTS} variants can be made at once")
        sources = self._sources([picture]).expand(count, -1, -1, -1)
        with self.seeded(seed):
            return to_pictures(self.noisy_generator(sources))

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """In it torch throws the dice of a seed; those of everybody else stay as they are."""
        with self._seeding, torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    @torch.inference_mode()
    def realism(self, source: Image.Image, picture: Image.Image) -> Image.Image:
        """How real the discriminator finds each patch of a picture, given its source.

        Returns "L" of the size of its map (30x30 for 256x256), 0 for surely generated, 255 for surely real.
        Raises CheckpointError if the checkpoint has no discriminator.
        """
        if self.discriminator is None:
            raise CheckpointError("this checkpoint holds no discriminator for a realism map; use one that does.")
        shown = self._arrange(to_tensor(fit(to_rgb(picture), self.task.size)))
        logits = self.discriminator(self._sources([source]), shown)
        # Least squares trains towards 0 and 1 directly; the other losses towards the sign.
        share = logits if self.adversarial == "least_squares" else torch.sigmoid(logits.float())
        return to_pictures(share.float().clamp(0, 1) * 2 - 1)[0]

    def _read(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Source pictures as float32 `(N, C, H, W)`."""
        mode = "L" if self.channels == 1 else "RGB"
        return torch.cat([to_tensor(self.task.read_source(picture).convert(mode)) for picture in pictures])

    def _arrange(self, tensor: Tensor) -> Tensor:
        """As the networks want it."""
        return tensor.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)

    def _sources(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self._arrange(self._read(pictures))


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth using there; a CPU without units for it would only be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def ready(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of a network for inference there: in eval mode, norms folded, channels last, without gradients."""
    network = fold_norms(network).requires_grad_(False)
    return network.to(device, dtype, memory_format=torch.channels_last)


def compile_on_cpu(
    network: nn.Module, example: Tensor, typical: Tensor | None = None
) -> Callable[[Tensor], Tensor] | None:
    """`compile_graph` for a network that is `ready`; None if it lives elsewhere. example, typical: float32."""
    weight = next(network.parameters())
    if weight.device.type != "cpu":
        return None
    network = shuffle_pixels(name_instance_norms(copy.deepcopy(network).float()))
    network = network.to(memory_format=torch.contiguous_format)
    return compile_graph(network, example, weight.dtype == torch.bfloat16, typical)


def share_weights(network: nn.Module) -> nn.Module:
    """A second network on the same weights, with modes of its own."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
