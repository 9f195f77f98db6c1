from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from gan_core import checkpoint
from gan_core.folding import fold_norms
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.segmentation import (
    PaletteDiscriminator,
    PaletteDiscriminatorConfig,
    SegmentationConfig,
    SegmentationGenerator,
)

PICTURE = SegmentationConfig(MaxPoolUNetConfig(widths=(8, 16, 16)))
CLASSES = SegmentationConfig(
    MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True, dropout=0.1),
    paints="classes",
    block=2,
    square=False,
)


def photos(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_published_networks_have_the_published_layers():
    generator, discriminator = (
        SegmentationGenerator(SegmentationConfig()),
        PaletteDiscriminator(PaletteDiscriminatorConfig()),
    )
    shapes = []
    for stage in (*generator.unet.downs, *generator.unet.ups, generator.unet.head):
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    convolutions = [module for module in discriminator.stages if isinstance(module, nn.Conv2d)]
    with torch.inference_mode():
        picture = generator.eval()(photos(1, 3, 224, 224))
        logits = discriminator.eval()(picture)
    assert shapes[:3] == [(64, 224, 224), (128, 112, 112), (256, 56, 56)]
    assert shapes[3:] == [(128, 112, 112), (64, 224, 224), (3, 224, 224)]
    assert picture.shape == (1, 3, 224, 224) and 0 <= picture.min() <= picture.max() <= 1
    assert [conv.out_channels for conv in convolutions] == [16, 32, 64, 128, 256]
    assert convolutions[0].in_channels == 3, "it sees the output alone"
    assert logits.shape == (1, 1, 14, 14)


@pytest.mark.parametrize("config", [PICTURE, CLASSES])
def test_any_multiple_of_the_size_gives_a_palette_picture(config, lively):
    generator = lively(SegmentationGenerator(config)).eval()
    with torch.inference_mode():
        picture = generator(photos(2, 3, 32, 48))
    assert picture.shape == (2, 3, 32, 48)
    assert 0 <= picture.min() <= picture.max() <= 1
    assert picture.std() > 0.01


@pytest.mark.parametrize("config", [PICTURE, CLASSES])
def test_every_parameter_gets_a_gradient(config):
    torch.manual_seed(0)
    generator = SegmentationGenerator(config).train()
    scores, presence = generator.scores_and_presence(photos(2, 3, 32, 32))
    total = generator.paint(scores).square().sum() + (0 if presence is None else presence.square().sum())
    total.backward()
    assert not [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]


def test_sure_scores_are_painted_in_the_colour_of_their_class():
    generator = SegmentationGenerator(CLASSES)
    labels = torch.arange(21).reshape(1, 3, 7)
    scores = 50.0 * nn.functional.one_hot(labels, 21).permute(0, 3, 1, 2).float()
    painted = (generator.paint(scores)[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    assert np.array_equal(painted, np.asarray(VOC.to_picture(labels[0].numpy())))
    even = generator.paint(torch.zeros(1, 21, 1, 1)).flatten()
    assert torch.allclose(even, torch.tensor(VOC.colors).float().mean(dim=0) / 255, atol=1e-6)


def test_a_painted_picture_is_decoded_to_the_nearest_colour():
    generator = SegmentationGenerator(PICTURE)
    picture = generator.colors.T.reshape(1, 3, 3, 7).clamp(0.02, 0.98)
    shares = generator.probabilities(torch.logit(picture))
    assert shares.shape == (1, 21, 3, 7)
    assert torch.equal(shares.argmax(dim=1).flatten(), torch.arange(21))
    assert torch.equal(shares.sum(dim=1), torch.ones(1, 3, 7))


def test_dropout_and_context_are_at_work_in_training_only(lively):
    generator = lively(SegmentationGenerator(CLASSES))
    photo = photos(1, 3, 32, 32)
    with torch.inference_mode():
        calm = [generator.eval().scores(photo) for _ in range(2)]
        assert torch.equal(*calm)
        cut = generator.unet.context.register_forward_hook(lambda _, __, output: (output[0] * 0, output[1]))
        assert not torch.equal(generator.scores(photo), calm[0])
        cut.remove()
    torch.manual_seed(0)
    assert not torch.equal(generator.train().scores(photo), generator.scores(photo))


def test_folded_norms_give_the_same_scores(lively):
    generator = lively(SegmentationGenerator(CLASSES)).eval()
    folded = fold_norms(generator)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.inference_mode():
        expected, found = (net.scores(photos(1, 3, 32, 32)) for net in (generator, folded))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@pytest.mark.parametrize("config", [PICTURE, CLASSES])
def test_a_generator_comes_back_from_its_checkpoint(tmp_path, config, lively):
    generator = lively(SegmentationGenerator(config)).eval()
    checkpoint.save(tmp_path / "x.safetensors", "segmentation", {"generator": generator})
    back = checkpoint.load(tmp_path / "x.safetensors").build("generator", SegmentationGenerator, SegmentationConfig)
    assert back.config == config
    with torch.inference_mode():
        assert (back(photos(1, 3, 32, 32)) - generator(photos(1, 3, 32, 32))).abs().max() < 0.02


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"paints": "masks"}, "must be one of picture, classes"),
        ({"block": 4}, "block 4 and paints 'classes' it needs 48 and 21"),
        ({"paints": "picture"}, "12 channels in and 21 out.* needs 12 and 3"),
    ],
)
def test_what_does_not_fit_together_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(CLASSES, **wrong)


def test_configs_survive_json():
    assert SegmentationConfig(**asdict(CLASSES)) == CLASSES
    assert hash(SegmentationConfig(**asdict(CLASSES))) == hash(CLASSES)
    assert PaletteDiscriminatorConfig([4, 8]) == PaletteDiscriminatorConfig((4, 8))
    assert CLASSES.multiple == 4
