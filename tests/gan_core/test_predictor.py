import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gan_core import checkpoint, predictor
from gan_core.checkpoint import CheckpointError
from gan_core.predictor import MAX_VARIANTS, Pix2PixPredictor, share_weights
from gan_core.unet import UNetConfig, UNetGenerator


@pytest.fixture
def float32(monkeypatch):
    """The same arithmetic on every machine, for comparisons to the last level."""
    monkeypatch.setattr(predictor, "has_bfloat16", lambda device: False)


@pytest.fixture
def house(float32, generator, discriminator, task) -> Pix2PixPredictor:
    return Pix2PixPredictor(generator, task, discriminator)


def levels(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max())


# --- predict


@pytest.mark.parametrize("size", [(1, 1), (37, 200), (256, 256), (800, 600), (3000, 2)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
def test_any_picture_becomes_rgb_of_the_size_of_the_task(generator, task, doodle, mode, size):
    answer = Pix2PixPredictor(generator, task).predict(doodle.convert(mode).resize(size))
    assert (answer.mode, answer.size) == ("RGB", (task.size, task.size))


def test_a_generator_for_rgb_sources_takes_drawings_too(task, doodle, lively):
    net = lively(UNetGenerator(UNetConfig(in_channels=3, base_channels=4)))
    assert Pix2PixPredictor(net, task).predict(doodle).size == (256, 256)


def test_one_drawing_has_one_answer_and_another_has_another(house, doodle):
    first = house.predict(doodle)
    assert first == house.predict(doodle)
    assert levels(first, house.predict(doodle.rotate(90))) > 20


def test_the_source_is_left_as_it_was(house, doodle):
    before = doodle.copy()
    house.predict(doodle)
    house.predict_variants(doodle, 2)
    assert doodle == before


def test_a_batch_answers_each_as_if_alone(house, doodle):
    drawings = [doodle.rotate(angle) for angle in (0, 90, 180, 45, 10)]
    answers = house.predict_batch(drawings)
    assert len(answers) == 5
    for drawing, answer in zip(drawings, answers):
        assert levels(house.predict(drawing), answer) <= 1


def test_nothing_asked_is_nothing_answered(house):
    assert house.predict_batch([]) == []


def test_the_task_makes_the_picture_ready(float32, generator, task, doodle):
    blank = replace(task, read_source=lambda picture: Image.new("L", (256, 256), "white"))
    house = Pix2PixPredictor(generator, blank)
    assert house.predict(doodle) == house.predict(doodle.rotate(90))


def test_the_network_handed_in_is_left_as_it_was(generator, task):
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    Pix2PixPredictor(generator.train(), task)
    assert generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


# --- what makes it fast


def test_a_second_network_shares_its_storage_but_not_its_mode(generator):
    second = share_weights(generator)
    theirs = [*second.parameters(), *second.buffers()]
    ours = [*generator.parameters(), *generator.buffers()]
    assert len(theirs) == len(ours) > 0
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(theirs, ours))
    second.train()
    assert not generator.training
    assert not any(module.training for module in generator.modules())


def test_bfloat16_gives_about_the_same_picture(monkeypatch, generator, task, doodle):
    pictures = []
    for chosen in (False, True):
        monkeypatch.setattr(predictor, "has_bfloat16", lambda device, chosen=chosen: chosen)
        pictures.append(np.asarray(Pix2PixPredictor(generator, task).predict(doodle)).astype(float))
    assert np.abs(pictures[0] - pictures[1]).mean() < 4


# --- variants


def test_one_seed_has_one_set_of_variants_and_another_has_another(house, doodle):
    first = house.predict_variants(doodle, 3, seed=5)
    assert first == house.predict_variants(doodle, 3, seed=5)
    assert first != house.predict_variants(doodle, 3, seed=6)


def test_variants_differ_from_each_other_and_from_the_answer(house, doodle):
    pictures = [house.predict(doodle), *house.predict_variants(doodle, 4)]
    assert len({picture.tobytes() for picture in pictures}) == 5


def test_a_net_with_noise_has_one_answer_and_many_variants(float32, noisy_generator, task, doodle):
    """With its dropout off, the noise alone makes the variants."""
    for module in noisy_generator.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    house = Pix2PixPredictor(noisy_generator, task)
    answer = house.predict(doodle)
    variants = house.predict_variants(doodle, 3, seed=1)
    assert house.predict_variants(doodle, 3, seed=1) == variants
    assert house.predict(doodle) == answer
    assert Pix2PixPredictor(noisy_generator, task).predict(doodle) == answer
    assert len({picture.tobytes() for picture in (answer, *variants)}) == 4
    assert all(levels(answer, variant) > 5 for variant in variants)


def test_variants_leave_the_global_dice_alone(house, doodle):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    house.predict_variants(doodle, 2, seed=9)
    house.predict(doodle)
    assert torch.equal(torch.get_rng_state(), before)


def test_predict_stays_silent_after_variants(house, doodle):
    before = house.predict(doodle)
    house.predict_variants(doodle, 2)
    assert house.predict(doodle) == before


@pytest.mark.parametrize("count", [-1, 0, MAX_VARIANTS + 1])
def test_a_count_out_of_range_names_the_range(house, doodle, count):
    with pytest.raises(ValueError, match=f"between 1 and {MAX_VARIANTS}"):
        house.predict_variants(doodle, count)


def test_as_many_variants_come_as_were_asked_for(house, doodle):
    assert [len(house.predict_variants(doodle, count)) for count in (1, MAX_VARIANTS)] == [1, MAX_VARIANTS]


# --- realism


def test_the_realism_map_has_one_value_for_each_patch(house, doodle):
    realism = house.realism(doodle, house.predict(doodle))
    assert (realism.mode, realism.size) == ("L", (30, 30))


@pytest.mark.parametrize("adversarial, unsure", [("bce", 0.0), ("hinge", 0.0), ("least_squares", 0.5)])
def test_realism_is_black_for_surely_generated_and_white_for_surely_real(
    float32, generator, discriminator, task, doodle, adversarial, unsure
):
    """A head without weights answers its bias; where that is certainty depends on the loss it was trained with."""
    nn.init.zeros_(discriminator.head.weight)
    for logit, level in ((unsure - 30, 0), (unsure, 128), (unsure + 30, 255)):
        nn.init.constant_(discriminator.head.bias, logit)
        house = Pix2PixPredictor(generator, task, discriminator, adversarial)
        realism = house.realism(doodle, Image.new("RGB", (256, 256)))
        assert realism.getcolors() == [(900, level)]


def test_realism_without_a_discriminator_says_so(generator, task, doodle):
    with pytest.raises(CheckpointError, match="no discriminator"):
        Pix2PixPredictor(generator, task).realism(doodle, doodle)


# --- from_checkpoint


def test_a_checkpoint_makes_the_predictor_it_was_saved_from(house, generator, discriminator, doodle, tmp_path):
    path, facts = tmp_path / "sketch2face.safetensors", {"recipe": {"adversarial": "least_squares"}}
    checkpoint.save(path, "sketch2face", {"generator": generator, "discriminator": discriminator}, facts)
    loaded = Pix2PixPredictor.from_checkpoint(path)
    assert (loaded.task, loaded.adversarial) == (house.task, "least_squares")
    assert levels(loaded.predict(doodle), house.predict(doodle)) <= 4
    assert loaded.realism(doodle, loaded.predict(doodle)).size == (30, 30)


def test_a_checkpoint_without_a_discriminator_predicts(generator, doodle, tmp_path):
    checkpoint.save(tmp_path / "x.safetensors", "sketch2face", {"generator": generator})
    loaded = Pix2PixPredictor.from_checkpoint(tmp_path / "x.safetensors")
    assert loaded.discriminator is None
    assert loaded.predict(doodle).size == (256, 256)


def test_a_checkpoint_for_no_task_of_this_house_is_refused(generator, discriminator, tmp_path):
    checkpoint.save(tmp_path / "x.safetensors", "text2song", {"generator": generator})
    with pytest.raises(CheckpointError, match=r"text2song.*sketch2face"):
        Pix2PixPredictor.from_checkpoint(tmp_path / "x.safetensors")
    checkpoint.save(tmp_path / "y.safetensors", "sketch2face", {"discriminator": discriminator})
    with pytest.raises(CheckpointError, match="holds no generator"):
        Pix2PixPredictor.from_checkpoint(tmp_path / "y.safetensors")


# --- threads


def test_threads_do_not_disturb_each_other(house, doodle):
    drawings = [doodle.rotate(angle) for angle in (0, 90, 180, 270)]
    alone = [house.predict(drawing) for drawing in drawings]
    variants = [house.predict_variants(drawing, 2, seed) for seed, drawing in enumerate(drawings)]
    with ThreadPoolExecutor(6) as pool:
        answers, sets = [], []
        for _ in range(5):
            sets.append([pool.submit(house.predict_variants, d, 2, seed) for seed, d in enumerate(drawings)])
            answers.append([pool.submit(house.predict, d) for d in drawings])
        for futures in answers:
            assert [future.result() for future in futures] == alone
        for futures in sets:
            assert [future.result() for future in futures] == variants


def test_predictors_do_not_disturb_each_other(generator, task, doodle):
    """The dice are torch's, of which there is one for all threads."""
    pair = [Pix2PixPredictor(generator, task) for _ in range(2)]
    expected = pair[0].predict_variants(doodle, 2, seed=7)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(15):
            for answer in pool.map(lambda predictor: predictor.predict_variants(doodle, 2, seed=7), pair):
                assert answer == expected


# --- the compiled graph


@pytest.mark.parametrize("kind", ["generator", "noisy_generator"])
def test_the_compiled_graph_answers_as_pytorch_does(float32, request, kind, task, doodle):
    house = Pix2PixPredictor(request.getfixturevalue(kind), task)
    drawings = [doodle, doodle.rotate(90), doodle.rotate(45)]
    before, variants = house.predict_batch(drawings), house.predict_variants(doodle, 2)
    assert house.accelerate()
    assert house._generate is not house.generator
    after = house.predict_batch(drawings)
    assert levels(after[0], after[1]) > 20
    assert max(map(levels, before, after)) <= 1
    assert after == house.predict_batch(drawings)
    assert variants == house.predict_variants(doodle, 2)


def test_without_openvino_pytorch_goes_on(house, doodle, monkeypatch):
    before = house.predict(doodle)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not house.accelerate()
    assert house.predict(doodle) == before


def test_a_net_that_is_not_on_the_processor_is_left_to_pytorch(house):
    house.generator.to("meta")
    assert not house.accelerate()


def test_many_threads_share_a_compiled_graph(house, doodle):
    house.accelerate()
    drawings = [doodle.rotate(angle) for angle in range(0, 360, 45)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(house.predict, drawings)) == house.predict_batch(drawings)


def test_compiling_sends_nothing_to_anybody(house, monkeypatch, tmp_path):
    """openvino.convert_model would."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # else an earlier test may have compiled it
    sent = []
    monkeypatch.setattr("openvino_telemetry.main.Telemetry.send_event", lambda *event, **more: sent.append(event))
    assert house.accelerate()
    assert not sent
