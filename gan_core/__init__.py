"""All that is needed to run the models.

Imports torch, numpy, PIL, cv2, av and safetensors, the command line tqdm, and hub, when asked for a model there,
huggingface_hub; never gradio, train or app.
"""

from gan_core.mixer import FaceMixer
from gan_core.predictor import Pix2PixPredictor
from gan_core.segmenter import Segmenter

__all__ = ["FaceMixer", "Pix2PixPredictor", "Segmenter"]
