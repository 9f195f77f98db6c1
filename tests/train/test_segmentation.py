import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gan_core import Segmenter, checkpoint
from gan_core.image import PictureError, open_picture
from gan_core.palette import VOC
from gan_core.segmentation import PaletteDiscriminatorConfig, SegmentationConfig, class_colors
from tests.train.runs import same
from train import pix2pix
from train.data import DataError
from train.run import RunError, RunFolder, Stopped
from train.segmentation import (
    PRESETS,
    SegmentationRecipe,
    Training,
    balanced_weights,
    class_loss,
    jaccard_loss,
    one_cycle,
    open_dataset,
    picture_loss,
    presence_loss,
    train,
    true_picture,
)

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("quick_curves")
TINY_DISCRIMINATOR = PaletteDiscriminatorConfig(widths=(4, 8, 8))


@pytest.fixture
def best(class_config) -> SegmentationRecipe:
    """The recipe of `best` with tiny networks and views, in the same arithmetic on every machine."""
    networks = {"generator": class_config, "discriminator": TINY_DISCRIMINATOR}
    tiny = {"size": 16, "grown_size": 32, "grow_from": 0.6, "validate_every": 1}
    return replace(PRESETS["best"], **networks, **tiny, epochs=3, batch_size=2, precision="float32")


@pytest.fixture
def paper(picture_config) -> SegmentationRecipe:
    networks = {"generator": picture_config, "discriminator": TINY_DISCRIMINATOR}
    return replace(PRESETS["paper"], **networks, epochs=3, batch_size=2, precision="float32")


@pytest.fixture(params=["paper", "best"])
def recipe(request, paper, best) -> SegmentationRecipe:
    return {"paper": paper, "best": best}[request.param]


@pytest.fixture
def new_run(tmp_path):
    return lambda name: RunFolder.create(tmp_path / name, "segmentation", {"task": "segmentation"})


def go(data, recipe, run, **options) -> Training:
    return train(data, recipe, run, workers=0, **options)


def logged(run: RunFolder, folder: str = ".") -> list[dict]:
    lines = (run.path / folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


# --- losses


def scored(labels: torch.Tensor, sure: float = 8.0) -> torch.Tensor:
    """Scores of a net that is sure of the right class; of void it says class 3."""
    return sure * F.one_hot(labels.where(labels != 255, 3), 21).permute(0, 3, 1, 2).float()


@pytest.fixture
def labels() -> torch.Tensor:
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[0, 2:6, 2:6] = 8
    labels[1, :4] = 12
    labels[:, 0] = 255
    return labels


LOSSES = {
    "classes": lambda scores, labels: class_loss(scores, labels, torch.ones(21)),
    "jaccard": jaccard_loss,
    "mae": lambda scores, labels: picture_loss(
        torch.einsum("nchw,ck->nkhw", scores.softmax(1), class_colors()), labels, class_colors()
    ),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_better_answer_has_a_lower_loss(loss, labels):
    values = [float(loss(scored(labels, sure), labels)) for sure in (-2.0, 0.0, 2.0, 30.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_void_has_no_say_in_any_loss(loss, labels):
    scores = scored(labels, 1.0).requires_grad_()
    loss(scores, labels).backward()
    assert not scores.grad.permute(0, 2, 3, 1)[labels == 255].any()
    assert scores.grad.permute(0, 2, 3, 1)[labels != 255].any()
    changed = torch.where((labels == 255)[:, None], torch.randn(2, 21, 8, 8), scores.detach())
    assert float(loss(changed, labels)) == pytest.approx(float(loss(scores.detach(), labels)), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_nothing_but_void_is_no_loss(loss, labels):
    assert float(loss(torch.randn(2, 21, 8, 8), torch.full_like(labels, 255))) == 0


def test_the_jaccard_loss_by_hand():
    """Class 0 on 3 pixels, class 1 on one; the net is sure of 0 everywhere: IoU 3 / 4 and 0."""
    labels = torch.tensor([[[0, 0], [0, 1]]])
    assert float(jaccard_loss(scored(torch.zeros_like(labels), 50.0), labels)) == pytest.approx(1 - (0.75 + 0) / 2)


def test_the_class_loss_is_the_textbook_one_without_weights(labels):
    scores = torch.randn(2, 21, 8, 8)
    expected = F.cross_entropy(scores, labels, ignore_index=255)
    assert float(class_loss(scores, labels, torch.ones(21))) == pytest.approx(float(expected), rel=1e-5)


def test_presence_is_asked_for_the_classes_of_each_picture(labels):
    right = torch.full((2, 21), -9.0)
    right[:, 0] = right[0, 8] = right[1, 12] = 9.0
    assert float(presence_loss(right, labels)) < 0.001
    assert float(presence_loss(right.flip(0), labels)) > 0.5


def test_rare_classes_count_more_up_to_a_bound():
    counts = np.zeros((2, 21), int)
    counts[:, 0], counts[0, 8], counts[1, 12] = 500, 250, 10
    weights = balanced_weights(counts, 5.0)
    assert (weights[0], weights[8], weights[12], weights[1]) == (1.0, 2.0, 5.0, 5.0)


def test_the_true_picture_shows_void_as_background(labels):
    picture = true_picture(labels, class_colors())
    assert (picture[0, :, 0] == 0).all()
    assert (picture[0, :, 3, 3] * 255).round().tolist() == list(VOC.colors[8])


def test_the_rate_rises_and_falls_once():
    rates = [one_cycle(step, 100) for step in range(100)]
    assert (rates[0], max(rates), rates[5]) == (0.2, 1.0, 1.0)
    assert rates[5:] == sorted(rates[5:], reverse=True) and rates[-1] < 0.001
    assert one_cycle(0, 1) == 1.0


# --- presets


def test_the_paper_preset_has_the_published_numbers():
    paper = PRESETS["paper"]
    assert (paper.generator, paper.discriminator) == (SegmentationConfig(), PaletteDiscriminatorConfig())
    assert (paper.generator.unet.widths, paper.generator.unet.convolutions) == ((64, 128, 256), 1)
    assert (paper.generator.size, paper.generator.square, paper.generator.paints) == (224, True, "picture")
    assert (paper.learning_rate, paper.beta1, paper.beta1_d, paper.beta2) == (2e-4, 0.5, 0.5, 0.999)
    assert (paper.mae_weight, paper.adversarial_weight, paper.adversarial_from) == (100.0, 1.0, 0.0)
    assert (paper.class_weight, paper.jaccard_weight, paper.weight_decay, paper.ema) == (0.0, 0.0, 0.0, 0.0)
    assert (paper.validate_every, paper.views, paper.schedule) == (1, False, "constant")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_together_and_survives_its_run_folder(preset):
    recipe = PRESETS[preset]
    assert SegmentationRecipe.from_dict(json.loads(json.dumps(asdict(recipe)))) == recipe
    assert recipe.size % recipe.generator.multiple == recipe.generator.size % recipe.generator.multiple == 0


# --- steps


def test_a_step_changes_every_weight_of_both_networks(recipe, prepared):
    training = Training(replace(recipe, adversarial_from=0.0), 10, CPU)
    before = {
        name: {k: v.clone() for k, v in getattr(training, name).named_parameters()}
        for name in ("generator", "discriminator")
    }
    dataset = open_dataset(prepared, "val", recipe)
    photo, labels = (torch.stack(part) for part in zip(dataset[0, 0], dataset[0, 1]))
    training.train_step(photo, labels)
    for name, weights in before.items():
        still = [key for key, value in getattr(training, name).named_parameters() if torch.equal(value, weights[key])]
        assert not still, name


def test_the_discriminator_waits_for_its_time(best, prepared):
    training = Training(replace(best, adversarial_from=0.5), 4, CPU)
    dataset = open_dataset(prepared, "val", best)
    batch = [torch.stack(part) for part in zip(dataset[0, 0], dataset[0, 1])]
    names = [set(training.train_step(*batch)) for _ in range(4)]
    assert names[:2] == [{"classes", "jaccard", "presence"}] * 2
    assert names[2:] == [{"classes", "jaccard", "presence", "d", "gan"}] * 2


def test_the_discriminator_cannot_see_what_is_void(paper):
    """Where everything is void, real and generated are the same picture to it."""
    training = Training(paper, 10, CPU)
    seen = []
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    labels = torch.full((2, 32, 32), 8)
    labels[:, :16] = 255
    training.train_step(torch.rand(2, 3, 32, 32), labels)
    assert len(seen) == 3 and all(not picture[:, :, :16].any() for picture in seen)
    assert all(picture[:, :, 16:].any() for picture in seen)


def test_a_few_pictures_can_be_learnt_by_heart(recipe, prepared):
    """One real run of each preset, with tiny networks."""
    quick = replace(recipe, learning_rate=5e-3, schedule="constant", views=False, adversarial_from=0.0)
    training = Training(quick, 10_000, CPU)
    dataset = open_dataset(prepared, "train", quick)
    photo, labels = (torch.stack(part) for part in zip(*(dataset[0, i] for i in range(4))))
    name = "mae" if recipe.mae_weight else "classes"
    losses = [float(training.train_step(photo, labels)[name]) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


# --- runs


def test_a_resumed_run_ends_as_if_it_had_never_stopped(prepared, recipe, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = go(prepared, recipe, straight)
    assert go(prepared, recipe, broken, stop_at=3).step == 3
    rest = go(prepared, recipe, broken, resume=True)
    assert (whole.step, rest.step) == (6, 6)
    for name in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d", "rng"):
        assert same(rest.state_dict()[name], whole.state_dict()[name]), name
    assert logged(broken) == logged(straight)
    assert logged(straight, "validation") == [x for x in logged(broken, "validation") if x["step"] != 3]


def test_a_run_that_is_asked_to_stop_saves_and_leaves_and_goes_on_as_if_it_had_not(prepared, best, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = go(prepared, best, straight)
    broken.asked_to_stop = "SIGTERM"
    with pytest.raises(Stopped):
        go(prepared, best, broken)
    assert broken.load_state()["step"] == 1
    assert checkpoint.load(broken.path / "segmentation.safetensors").facts["steps"] == 1
    assert same(go(prepared, best, RunFolder(broken.path), resume=True).state_dict(), whole.state_dict())
    for folder in (".", "validation"):
        assert logged(broken, folder) == logged(straight, folder)


def test_damaged_training_pictures_are_passed_over_and_held_out_ones_stop_the_run_at_once(
    prepared, best, new_run, capsys
):
    (prepared / "train" / "photos" / "1.jpg").write_bytes(b"no picture")
    (prepared / "train" / "labels" / "2.png").write_bytes(b"no picture")
    assert go(prepared, best, new_run("run")).step == 6
    said = capsys.readouterr().out
    assert said.count("photos: '1.jpg' is not a picture") == 1
    assert said.count("2.png: its mask cannot be read") == 1
    (prepared / "val" / "labels" / "5.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"5\.png: its mask cannot be read"):
        go(prepared, best, new_run("other"))
    assert not (new_run("other").path / "log.jsonl").exists()


def test_each_epoch_has_its_validation_phase(prepared, recipe, new_run):
    run = new_run("run")
    go(prepared, recipe, run)
    figures = logged(run, "validation")
    assert [record["step"] for record in figures] == [2, 4, 6]
    assert all(0 <= record[name] <= 1 for record in figures for name in ("mae", "miou", "accuracy"))
    assert (run.path / "validation" / "losses.png").is_file()


def test_validation_changes_nothing(prepared, recipe):
    training = Training(recipe, 10, CPU)
    before = copy.deepcopy(training.state_dict())
    first, second = (training.validate(open_dataset(prepared, "val", recipe)) for _ in range(2))
    assert first == second
    assert same(training.state_dict(), before)


def test_fine_tuning_with_compile_does_not_average_the_compiled_generator_itself(
    recipe, prepared, tmp_path, monkeypatch
):
    """A compiled method knows the network that it was compiled for; a copy of it would call that one."""
    monkeypatch.setattr(torch, "compile", lambda function, mode: lambda *arguments: function(*arguments))
    file = tmp_path / "segmentation.safetensors"
    checkpoint.save(file, "segmentation", {"generator": Training(replace(recipe, seed=1), 10, CPU).generator})
    training = Training(recipe, 10, CPU, compiled="default")
    training.start_from(checkpoint.load(file))
    before = copy.deepcopy(training.state_dict())
    training.validate(open_dataset(prepared, "val", recipe))
    assert same(training.state_dict(), before)
    assert same(before["ema"], before["generator"])


def test_a_run_leaves_a_checkpoint_and_pictures_to_look_at(prepared, recipe, new_run, scene):
    run = new_run("run")
    go(prepared, recipe, run, sample_every=4)
    loaded = checkpoint.load(run.path / "segmentation.safetensors", "segmentation")
    assert (loaded.facts["steps"], loaded.facts["images"]) == (6, 12)
    assert SegmentationRecipe.from_dict(loaded.facts["recipe"]) == recipe
    assert Segmenter.from_checkpoint(run.path / "segmentation.safetensors").segment(scene(9)[0]).shape == (48, 60)
    assert sorted(path.name for path in (run.path / "samples").iterdir()) == ["0000004.jpg", "0000006.jpg"]
    assert open_picture(run.path / "samples" / "0000006.jpg").height == 4 * 32 + 3 * 2
    assert (run.path / "losses.png").is_file()


def test_losses_that_explode_stop_the_run(prepared, best, new_run):
    with pytest.raises(RunError, match=r"nan.*lower --learning-rate"):
        go(prepared, replace(best, class_weight=float("nan")), new_run("run"))


def test_fewer_pictures_than_a_batch_are_an_error(prepared, best, new_run):
    with pytest.raises(DataError, match=r"4 pictures.*batch of 5.*--batch-size"):
        go(prepared, replace(best, batch_size=5), new_run("run"))


# --- the command


@pytest.fixture
def command(monkeypatch, best, prepared):
    """`python -m train.pix2pix segmentation` with the tiny networks as its best preset."""
    monkeypatch.setitem(PRESETS, "best", best)

    def command(*arguments) -> None:
        start = ["segmentation", "--data", str(prepared), "--workers", "0", "--device", "cpu"]
        pix2pix.main([*start, *map(str, arguments)])

    return command


def test_the_command_trains_stops_goes_on_and_tunes(command, tmp_path, capsys):
    run = tmp_path / "run"
    command("--out", run, "--epochs", 2, "--paste", 0.25, "--stop-at", 2)
    options = json.loads((run / "options.json").read_text())
    assert (options["task"], options["config"]["epochs"], options["config"]["paste"]) == ("segmentation", 2, 0.25)
    command("--resume", run)
    assert checkpoint.load(run / "segmentation.safetensors").facts["steps"] == 4
    command("--out", tmp_path / "tuned", "--init", run / "segmentation.safetensors", "--stop-at", 1)
    said = capsys.readouterr().out
    count = len(checkpoint.load(run / "segmentation.safetensors").weights["generator"])
    assert f"{count} of {count} tensors of the generator" in said
    assert f"python app.py --model segmentation={run}/segmentation.safetensors" in said


def test_missing_data_is_named_before_a_run_folder_is_made(command, prepared, tmp_path):
    (prepared / "val").rename(prepared / "elsewhere")
    with pytest.raises(SystemExit, match=r"error: .*val is not a folder"):
        command("--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option, said",
    [
        (("--schedule", "linear"), "schedule is 'linear'; it must be one of constant, one_cycle"),
        (("--precision", "bf16"), "precision is 'bf16'; it must be one of auto, bfloat16, float32"),
        (
            ("--class-weight", "0", "--jaccard-weight", "0", "--presence-weight", "0"),
            "nothing is learnt from the first step on; give a --class-weight or a --mae-weight",
        ),
    ],
)
def test_a_value_that_is_no_choice_is_named_with_the_choices(refused, option, said):
    refused(option, said)


def test_a_run_of_another_task_cannot_be_resumed(command, tmp_path):
    RunFolder.create(tmp_path / "run", "facades", {"task": "facades", "config": {}})
    with pytest.raises(SystemExit, match="is a run of facades, not of segmentation"):
        command("--resume", tmp_path / "run")


def test_accumulation_is_refused(refused):
    refused(("--accumulate", "2"), "segmentation has losses of the whole batch, and so no --accumulate. Leave it out.")


def test_a_recorded_step_is_refused(refused):
    refused(
        ("--compile", "graph"),
        "the steps of segmentation are not all alike, and so it has no --compile graph, as sketch2face and facades "
        "have. Leave it out, or give another MODE.",
    )
