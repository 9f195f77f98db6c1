import json
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import FaceMixer, checkpoint
from gan_core.image import PictureError
from gan_core.vae_gan import DiscriminatorConfig, VAEConfig
from tests.train.runs import losses, same
from train import vae_gan
from train.data import DataError, EpochBatches
from train.pictures import PicturesInMemory, rotate
from train.run import RunError, RunFolder, Stopped
from train.vae_gan import PRESETS, Guards, Training, VAEGANConfig, encode_all, free_latents, main, train

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("quick_curves")
VAE_TINY = VAEConfig(latent=8, widths=(4, 4, 8, 8, 8))
PATCH_TINY = DiscriminatorConfig(trunk="patch", widths=(4, 8, 8, 8))


def tiny(preset: str) -> VAEGANConfig:
    """A preset with tiny networks, in the same arithmetic on every machine."""
    recipe = PRESETS[preset]
    vae = replace(recipe.vae, latent=8, widths=VAE_TINY.widths, refine_channels=min(4, recipe.vae.refine_channels))
    return replace(recipe, vae=vae, discriminator=PATCH_TINY, epochs=3, batch_size=4, precision="float32")


@pytest.fixture
def config() -> VAEGANConfig:
    return tiny("best")


@pytest.fixture
def data(tmp_path, portrait):
    """Two batches of four: six steps are three epochs."""
    for split, seeds in (("train", range(8)), ("val", range(8, 12))):
        (tmp_path / "data" / split).mkdir(parents=True)
        for seed in seeds:
            portrait(seed, 96).save(tmp_path / "data" / split / f"{seed}.png")
    return tmp_path / "data"


@pytest.fixture
def new_run(tmp_path):
    return lambda name: RunFolder.create(tmp_path / name, "vaegan", {"task": "vaegan"})


def batch(portrait, n: int = 4) -> torch.Tensor:
    pictures = np.stack([np.asarray(portrait(seed, 96)) for seed in range(n)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255


# --- pictures


def test_pictures_are_what_is_on_disk(data, portrait):
    dataset = PicturesInMemory(data / "train", 96)
    assert len(dataset) == 8
    assert torch.equal(dataset.plain(slice(0, 4)), batch(portrait))
    assert torch.equal(dataset.plain(np.array([1, 3])), batch(portrait)[[1, 3]])


def test_an_item_depends_on_seed_epoch_and_index_alone(data):
    a, b = (PicturesInMemory(data / "train", 96, seed=5, rotation=10) for _ in range(2))
    assert torch.equal(a[2, 3][0], b[2, 3][0])
    assert a[2, 3][0].shape == (3, 96, 96) and a[2, 3][0].min() >= 0 and a[2, 3][0].max() <= 1
    assert not torch.equal(a[2, 3][0], a[3, 3][0])


def test_half_of_the_pictures_are_mirrored(data):
    dataset = PicturesInMemory(data / "train", 96)
    plain = dataset.plain(slice(0, 1))[0]
    views = [dataset[epoch, 0][0] for epoch in range(100)]
    mirrored = sum(torch.equal(view, plain.flip(2)) for view in views)
    assert 30 < mirrored < 70
    assert mirrored + sum(torch.equal(view, plain) for view in views) == 100


def test_a_turned_picture_has_reflections_or_black_in_its_corners():
    white = np.full((96, 96, 3), 255, np.uint8)
    assert (rotate(white, 10, reflect=True) == 255).all()
    black = rotate(white, 10, reflect=False)
    assert black[0, 0].max() == 0 and black[48, 48].min() == 255


def test_turning_there_and_back_returns_the_picture(portrait):
    picture = np.asarray(portrait(0, 96))
    back = rotate(rotate(picture, 10, True), -10, True)
    assert np.abs(back[20:-20, 20:-20].astype(int) - picture[20:-20, 20:-20]).mean() < 4


def test_pictures_of_another_size_are_named_with_a_remedy(data):
    Image.new("RGB", (64, 96)).save(data / "train" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png is 64x96, not 96x96.*prepare anime"):
        PicturesInMemory(data / "train", 96)


def test_the_next_picture_stands_in_for_one_that_cannot_be_read_where_that_is_wanted(data, portrait, capsys):
    plain = PicturesInMemory(data / "train", 96).pictures
    for number in (3, 4, 7):
        (data / "train" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=rf"{data / 'train'}: '3\.png' is not a picture"):
        PicturesInMemory(data / "train", 96)
    pictures = PicturesInMemory(data / "train", 96, stand_ins=True).pictures
    assert np.array_equal(pictures, plain[[0, 1, 2, 5, 5, 5, 6, 0]])
    said = capsys.readouterr().out
    assert [f"warning: {data / 'train'}: '{number}.png'" in said for number in range(8)] == [
        number in (3, 4, 7) for number in range(8)
    ]
    for file in (data / "train").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"8 pictures in a row cannot be read. The last: .*7\.png"):
        PicturesInMemory(data / "train", 96, stand_ins=True)
    (data / "train" / "7.png").unlink()
    with pytest.raises(DataError, match="none of the 7 pictures"):
        PicturesInMemory(data / "train", 96, stand_ins=True)


def test_a_run_takes_stand_ins_for_training_pictures_but_not_for_held_out_ones(data, config, new_run, capsys):
    (data / "train" / "0.png").write_bytes(b"no picture")
    assert train(data, config, new_run("run"), stop_at=1).step == 1
    assert "'0.png' is not a picture" in capsys.readouterr().out
    (data / "val" / "9.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"val: '9\.png' is not a picture"):
        train(data, config, new_run("other"), stop_at=1)


# --- one step


@pytest.mark.parametrize("preset", PRESETS)
def test_the_reconstruction_of_a_preset_falls(preset, portrait):
    torch.manual_seed(0)
    training = Training(replace(tiny(preset), learning_rate=2e-3), 10_000, CPU)
    l1 = [float(training.train_step(batch(portrait))["l1"]) for _ in range(50)]
    assert np.mean(l1[-5:]) < 0.7 * np.mean(l1[:3])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_changes_every_weight_of_both_networks(preset, portrait):
    training = Training(replace(tiny(preset), gan_start=0.0, gan_ramp=0.0, kl_ramp=0.0), 10, CPU)
    for _ in range(2):  # a residual block starts as its shortcut: its weights follow in the second step
        before = {k: v.clone() for part in (training.vae, training.discriminator) for k, v in part.named_parameters()}
        losses = training.train_step(batch(portrait))
    after = {k: v for part in (training.vae, training.discriminator) for k, v in part.named_parameters()}
    # What follows a batch norm needs no offset from the layer before it.
    assert [name for name in after if torch.equal(before[name], after[name])] == []
    assert all(np.isfinite(float(x)) for x in losses.values())


def test_before_its_start_the_discriminator_rests(config, portrait):
    training = Training(replace(config, gan_start=0.5), 10, CPU)
    before = {k: v.clone() for k, v in training.discriminator.named_parameters()}
    losses = training.train_step(batch(portrait))
    assert (losses["d"], losses["gan"], losses["features"]) == (0, 0, 0)
    assert all(torch.equal(v, before[k]) for k, v in training.discriminator.named_parameters())
    training.step = 8
    assert float(training.train_step(batch(portrait))["d"]) > 0


def test_a_discriminator_above_its_gate_waits(config, portrait):
    training = Training(replace(config, gan_start=0.0, gan_ramp=0.0), 10, CPU)
    training.lead = 0.99
    before = {k: v.clone() for k, v in training.discriminator.named_parameters()}
    training.train_step(batch(portrait))
    assert all(torch.equal(v, before[k]) for k, v in training.discriminator.named_parameters())


def test_the_discriminator_is_not_moved_by_the_decoders_loss(config, portrait):
    training = Training(replace(config, gan_start=0.0, gan_ramp=0.0, learning_rate_d=0.0), 10, CPU)
    training.train_step(batch(portrait))
    gradients = [p.grad.clone() for p in training.discriminator.parameters()]
    assert all(p.requires_grad for p in training.discriminator.parameters())
    heavier = Training(replace(training.config, gan_weight=100.0, feature_weight=900.0), 10, CPU)
    heavier.train_step(batch(portrait))
    assert all(torch.equal(p.grad, g) for p, g in zip(heavier.discriminator.parameters(), gradients))


def test_schedules_rise_where_the_recipe_says(config):
    training = Training(config, 100, CPU)
    for step, expected in ((0, 0.0), (25, 0.0), (30, 0.5), (35, 1.0), (99, 1.0)):
        training.step = step
        assert training.progress(0.25, 0.1) == pytest.approx(expected)
    training.step = 0
    assert training.progress(0.0, 0.0) == 1.0


def test_free_latents_are_a_third_each_prior_blends_and_pulled_to_the_mean():
    torch.manual_seed(0)
    latents = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
    free = free_latents(latents, 3000)
    assert free.shape == (3000, 2)
    prior, blends, pulled = free.split(1000)
    assert prior.mean(dim=0).tolist() == pytest.approx([0, 0], abs=0.15)
    assert prior.std() == pytest.approx(1, abs=0.1)
    assert 4 < blends.norm(dim=1).median() < 5.1  # about as long as what is mixed
    assert (blends.abs().min(dim=1).values > 0.5).float().mean() > 0.5  # and in between
    assert (pulled.abs().min(dim=1).values < 1e-5).all()  # on the way from one of them to the mean
    assert pulled.norm(dim=1).mean() == pytest.approx(2.5, abs=0.2)
    assert pulled.norm(dim=1).max() <= 5


@pytest.mark.parametrize(
    "count, shares", [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 1, 0)), (4, (2, 1, 1)), (8, (3, 3, 2)), (9, (3, 3, 3))]
)
def test_few_free_latents_are_as_even_as_can_be(count, shares):
    """Seen with latents far from N(0, 1): blends are as far, and what is pulled stays on its axis."""
    torch.manual_seed(0)
    free = free_latents(torch.tensor([[5e3, 0.0], [0.0, 5e3], [-5e3, 0.0], [0.0, -5e3]]), count)
    pulled = free.abs().min(dim=1).values < 1e-5
    prior = (free.norm(dim=1) < 10) & ~pulled
    assert free.shape == (count, 2)
    assert (int(prior.sum()), int((~prior & ~pulled).sum()), int(pulled.sum())) == shares


# --- resume


def test_a_resumed_run_ends_as_if_it_had_never_stopped(data, config, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = train(data, config, straight, save_every=2)
    assert train(data, config, broken, save_every=1, stop_at=3).step == 3
    rest = train(data, config, broken, save_every=2, resume=True)
    assert whole.step == rest.step == 6
    assert same(rest.state_dict(), whole.state_dict())
    assert losses(broken.path) == losses(straight.path)
    a, b = (checkpoint.load(run.path / "vaegan.safetensors").weights for run in (straight, broken))
    assert same(a, b)


def test_a_run_that_is_asked_to_stop_saves_and_leaves_and_goes_on_as_if_it_had_not(data, config, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = train(data, config, straight)
    broken.asked_to_stop = "SIGTERM"
    with pytest.raises(Stopped):
        train(data, config, broken)
    assert broken.load_state()["step"] == 1
    assert checkpoint.load(broken.path / "vaegan.safetensors").facts["steps"] == 1
    assert same(train(data, config, RunFolder(broken.path), resume=True).state_dict(), whole.state_dict())
    assert losses(broken.path) == losses(straight.path)


def test_a_finished_run_says_so(data, config, new_run, capsys):
    run = new_run("run")
    train(data, config, run)
    train(data, config, run, resume=True)
    assert "finished its 6 steps already. Give more --epochs" in capsys.readouterr().out


# --- guards


def test_losses_that_explode_stop_the_run_and_the_last_good_state_is_kept(data, config, new_run, monkeypatch):
    step = Training.train_step

    def explode(training, real):
        return step(training, real * float("nan") if training.step == 3 else real)

    monkeypatch.setattr(Training, "train_step", explode)
    run = new_run("run")
    with pytest.raises(RunError, match=r"nan.*lower --learning-rate"):
        train(data, config, run, save_every=2)
    assert run.load_state()["step"] == 2
    monkeypatch.setattr(Training, "train_step", step)
    assert train(data, config, run, resume=True).step == 6


def test_a_weight_that_is_no_number_is_named_and_not_saved(data, config, new_run, monkeypatch):
    step = Training.train_step

    def break_a_weight(training, real):
        result = step(training, real)
        if training.step == 4:
            training.ema.module.encoder.mean.weight.data[0, 0] = float("nan")
        return result

    monkeypatch.setattr(Training, "train_step", break_a_weight)
    run = new_run("run")
    with pytest.raises(RunError, match=r"after step 4 vae\.encoder\.mean\.weight is not finite.*after step 2"):
        train(data, config, run, save_every=2)
    assert checkpoint.load(run.path / "vaegan.safetensors").facts["steps"] == run.load_state()["step"] == 2


def record(step: int, active: float = 200, lead: float = 0.7) -> dict:
    return {"step": step, "active": active, "lead": lead}


@pytest.mark.parametrize("trouble, words", [({"active": 2}, "posterior has collapsed"), ({"lead": 0.99}, "it has won")])
def test_trouble_that_lasts_stops_a_run_or_is_reported_once(trouble, words):
    config = replace(PRESETS["best"], patience=10)
    with pytest.raises(RunError, match=rf"For 10 steps, up to step 9.*{words}.*Start again with"):
        Guards(config).check([record(step, **trouble) for step in range(12)])
    lasting = [record(step, **trouble) for step in range(30)]
    guards = Guards(replace(config, stop=False))
    assert len(guards.check(lasting[:5]) + guards.check(lasting[5:])) == 1


def test_trouble_that_passes_is_none():
    guards = Guards(replace(PRESETS["best"], patience=10))
    assert (
        guards.check([record(step, lead=0.99 if step % 9 else 0.6, active=1 if step % 9 else 90) for step in range(90)])
        == []
    )


def test_a_collapse_in_training_is_seen(data, config, new_run):
    """So heavy a divergence that the latent falls silent."""
    heavy = replace(
        config, kl_weight=1e5, kl_ramp=0.0, free_bits=0.0, gan_start=2.0, learning_rate=1e-2, epochs=100, patience=20
    )
    with pytest.raises(RunError, match=r"the posterior has collapsed.*--kl-weight"):
        train(data, heavy, new_run("run"), save_every=1000, sample_every=1000)


def test_a_discriminator_that_wins_in_training_is_seen(data, config, new_run, monkeypatch, capsys):
    """The decoder stands still, and the discriminator learns fast."""
    monkeypatch.setattr(Guards, "LEAD", 0.75)
    still = {"learning_rate": 0.0, "learning_rate_d": 1e-2, "gan_start": 0.0, "gan_ramp": 0.0, "judged": 0.0}
    unfair = replace(config, **still, gate=1.0, epochs=100, patience=10, stop=False)
    train(data, unfair, new_run("run"), save_every=1000, sample_every=1000, stop_at=100)
    assert "the discriminator was right about" in capsys.readouterr().out


# --- what a run leaves behind


def test_a_run_leaves_a_checkpoint_for_the_app_and_pictures_to_look_at(data, config, new_run):
    run = new_run("run")
    training = train(data, config, run, sample_every=4)
    mixer = FaceMixer.from_checkpoint(run.path / "vaegan.safetensors")
    assert mixer.decode(mixer.sample(2, seed=0))[0].size == (96, 96)
    loaded = checkpoint.load(run.path / "vaegan.safetensors", "vaegan")
    assert (loaded.facts["steps"], loaded.facts["images"]) == (6, 24)
    assert VAEGANConfig.from_dict(loaded.facts["recipe"]) == config
    for key, value in training.ema.module.state_dict().items():
        assert torch.allclose(loaded.weights["vae"][key].float(), value.float(), rtol=1e-3, atol=1e-5), key
    assert sorted(path.name for path in (run.path / "samples").iterdir()) == ["0000004.jpg", "0000006.jpg"]
    assert (run.path / "losses.png").is_file()
    assert not list(run.path.rglob("*.partial"))


def test_the_latent_space_of_a_finished_run_is_that_of_its_pictures(data, config, new_run):
    run = new_run("run")
    training = train(data, config, run)
    codes = encode_all(training.ema.module, PicturesInMemory(data / "train", 96), 8, CPU, "float32")
    mixer = FaceMixer.from_checkpoint(run.path / "vaegan.safetensors")
    assert np.allclose(mixer.mean, codes.mean(dim=0), atol=2e-3)
    assert np.allclose(mixer.deviations[:3], torch.linalg.svdvals(codes - codes.mean(dim=0))[:3] / 7**0.5, rtol=1e-2)


def test_the_paper_preset_runs_as_published(portrait):
    """The real networks, one step."""
    paper = replace(PRESETS["paper"], batch_size=2, precision="float32")
    losses = Training(paper, 10, CPU).train_step(batch(portrait, 2))
    assert all(np.isfinite(float(loss)) for loss in losses.values())


def test_a_worker_process_sees_what_the_run_itself_would_see(data, config, new_run):
    runs = [new_run("alone"), new_run("helped")]
    for run, workers in zip(runs, (0, 1)):
        train(data, config, run, stop_at=2, workers=workers)
    assert losses(runs[0].path) == losses(runs[1].path)


# --- presets


def test_the_paper_preset_has_the_published_numbers():
    paper = PRESETS["paper"]
    assert (paper.vae, paper.discriminator) == (VAEConfig(), DiscriminatorConfig())
    assert (paper.learning_rate, paper.learning_rate_d, paper.beta1, paper.beta2) == (2e-4, 2e-4, 0.5, 0.999)
    assert (paper.adversarial, paper.gan_weight, paper.l1_weight, paper.bce_weight, paper.kl_weight) == (
        "bce",
        1,
        100,
        1,
        1,
    )
    assert (paper.rotation, paper.rotation_chance, paper.reflect) == (10, 1, False)
    assert (paper.ssim_weight, paper.feature_weight, paper.judged, paper.free_bits, paper.ema) == (0, 0, 0, 0, 0)
    assert (paper.gan_start, paper.gan_ramp, paper.kl_ramp, paper.gate, paper.decay) == (0, 0, 0, 1, False)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_its_run_folder(preset):
    config = PRESETS[preset]
    assert VAEGANConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


# --- the command


@pytest.fixture
def command(monkeypatch, config, data):
    """`main` with the tiny networks as its best preset."""
    monkeypatch.setitem(PRESETS, "best", config)
    return lambda *arguments: main(["--data", str(data), "--device", "cpu", *map(str, arguments)])


def test_the_command_trains_stops_and_goes_on(command, tmp_path, capsys):
    run = tmp_path / "run"
    command("--out", run, "--epochs", 2, "--kl-weight", 0.25, "--no-reflect", "--stop-at", 2)
    options = json.loads((run / "options.json").read_text())
    assert options["task"] == "vaegan"
    assert (options["config"]["epochs"], options["config"]["kl_weight"], options["config"]["reflect"]) == (
        2,
        0.25,
        False,
    )
    assert checkpoint.load(run / "vaegan.safetensors").facts["steps"] == 2
    command("--resume", run)
    assert checkpoint.load(run / "vaegan.safetensors").facts["steps"] == 4
    assert f"python app.py --model vaegan={run}/vaegan.safetensors" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds a run already"):
        command("--out", run)


def test_fine_tuning_starts_from_the_weights_that_fit(command, tmp_path, capsys):
    command("--out", tmp_path / "first", "--stop-at", 1)
    file = tmp_path / "first" / "vaegan.safetensors"
    command("--out", tmp_path / "second", "--init", file, "--stop-at", 1, "--learning-rate", 0)
    said = capsys.readouterr().out
    own = len(checkpoint.load(file).weights["vae"])
    assert f"{own} of {own} tensors of the vae" in said
    a, b = (checkpoint.load(tmp_path / name / "vaegan.safetensors").weights["vae"] for name in ("first", "second"))
    assert torch.equal(a["encoder.mean.weight"], b["encoder.mean.weight"])


def test_a_resumed_run_still_says_what_it_was_tuned_from(command, tmp_path):
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    command("--out", first, "--stop-at", 1)
    command("--out", tuned, "--init", first / "vaegan.safetensors", "--stop-at", 1)
    for _ in range(2):
        command("--resume", tuned, "--stop-at", 2)
        assert json.loads((tuned / "options.json").read_text())["init"] == str(first / "vaegan.safetensors")
        facts = checkpoint.load(tuned / "vaegan.safetensors").facts
        assert (facts["steps"], facts["init"]) == (2, "vaegan.safetensors")


def test_a_run_of_another_task_cannot_be_resumed(command, tmp_path):
    RunFolder.create(tmp_path / "run", "facades", {"task": "facades", "config": {}})
    with pytest.raises(SystemExit, match="is a run of facades, not of vaegan"):
        command("--resume", tmp_path / "run")


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_data_is_named_before_a_run_folder_is_made(command, data, tmp_path, split):
    (data / split).rename(data / "elsewhere")
    with pytest.raises(SystemExit, match=f"error: .*{split} is not a folder"):
        command("--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [("--epochs", "many"), ("--learnin-rate", "1")])
def test_a_typo_in_an_option_is_refused_before_a_run_folder_is_made(command, tmp_path, arguments, capsys):
    with pytest.raises(SystemExit):
        command("--out", tmp_path / "run", *arguments)
    assert re.search("--epochs: invalid int value|unrecognized arguments: --learnin-rate", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option, said",
    [
        (("--adversarial", "hinges"), "adversarial is 'hinges'; it must be one of bce, least_squares, hinge"),
        (("--precision", "bf16"), "precision is 'bf16'; it must be one of auto, bfloat16, float32"),
        (("--batch-size", "1"), "batch_size is 1; it must be at least 2"),
    ],
)
def test_a_value_that_is_no_choice_is_named_with_the_choices(refused, option, said):
    refused(option, said)


def test_fewer_pictures_than_a_batch_are_an_error(command, tmp_path):
    with pytest.raises(SystemExit, match=r"8 pictures.*batch of 9.*--batch-size"):
        command("--out", tmp_path / "run", "--batch-size", 9)


def test_an_interrupted_run_says_how_to_go_on(command, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(vae_gan, "train", interrupt)
    with pytest.raises(
        SystemExit, match=rf"go on with: python -m train\.vae_gan --data .* --resume {tmp_path / 'run'}"
    ):
        command("--out", tmp_path / "run")


def test_pictures_are_read_once_not_in_each_step(data):
    dataset = PicturesInMemory(data / "train", 96, rotation=10)
    before = [dataset[key] for key in next(iter(EpochBatches(8, 8)))]
    shutil.rmtree(data / "train")
    for (picture,), key in zip(before, next(iter(EpochBatches(8, 8)))):
        assert torch.equal(dataset[key][0], picture)


def test_accumulation_is_refused(refused):
    refused(("--accumulate", "2"), "vaegan has losses of the whole batch, and so no --accumulate. Leave it out.")


def test_a_recorded_step_is_refused(refused):
    refused(
        ("--compile", "graph"),
        "the steps of vaegan are not all alike, and so it has no --compile graph, as sketch2face and facades have. "
        "Leave it out, or give another MODE.",
    )
