import io
import itertools
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from gan_core import Pix2PixPredictor, checkpoint
from gan_core.image import to_tensor
from gan_core.lineart import draw_lines, random_doodle
from gan_core.losses import discriminator_loss
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.unet import UNetConfig
from tests.train.runs import losses, same
from train import pix2pix
from train.data import DataError
from train.pix2pix import PRESETS, Pix2PixConfig, Training, fade_gradient, fixed_drawings, main, train
from train.run import RunError, RunFolder, Stopped
from train.shards import write_shard

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("quick_curves")


@pytest.fixture
def config(unet_config, patchgan_config) -> Pix2PixConfig:
    """The recipe of `best` with tiny networks, in the same arithmetic on every machine."""
    best = PRESETS["sketch2face"]["best"]
    networks = {"generator": unet_config, "discriminator": patchgan_config}
    return replace(best, **networks, epochs=3, batch_size=2, precision="float32")


@pytest.fixture
def data(tmp_path, portrait):
    """Two batches of two: six steps are three epochs."""
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        (tmp_path / "data" / split).mkdir(parents=True)
        for seed in seeds:
            portrait(seed).save(tmp_path / "data" / split / f"{seed}.png")
    return tmp_path / "data"


@pytest.fixture
def new_run(tmp_path, config):
    def new_run(name: str) -> RunFolder:
        return RunFolder.create(tmp_path / name, "sketch2face", {"task": "sketch2face"})

    return new_run


def go(data, config, run, **options) -> Training:
    return train(data, "sketch2face", config, run, workers=0, **options)


# --- resume


def test_a_resumed_run_ends_as_if_it_had_never_stopped(data, config, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = go(data, config, straight, save_every=1)
    half = go(data, config, broken, save_every=1, stop_at=3)
    assert (whole.step, half.step) == (6, 3)
    rest = go(data, config, broken, save_every=1, resume=True)
    assert rest.step == 6
    for name in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d", "rng"):
        assert same(rest.state_dict()[name], whole.state_dict()[name]), name
    assert losses(broken.path) == losses(straight.path)
    assert list(losses(straight.path)) == [1, 2, 3, 4, 5, 6]


def rates(training: Training) -> tuple[float, float]:
    return training.optimizer_g.param_groups[0]["lr"], training.optimizer_d.param_groups[0]["lr"]


def test_the_learning_rates_of_a_resumed_run_are_those_of_its_step(data, config, new_run):
    """Six steps: constant up to half of them, then down; the rates are those that the last step was made with."""
    run, slower = new_run("run"), replace(config, learning_rate=0.3, learning_rate_d=0.1)
    assert rates(go(data, slower, run, stop_at=4)) == pytest.approx((0.3, 0.1))
    assert rates(go(data, slower, run, resume=True, stop_at=5)) == pytest.approx((0.3 * 2 / 3, 0.1 * 2 / 3))
    assert rates(go(data, slower, run, resume=True)) == pytest.approx((0.3 / 3, 0.1 / 3))


def test_what_was_logged_after_the_last_save_is_dropped_on_resume(data, config, new_run):
    run = new_run("run")
    go(data, config, run, save_every=2, stop_at=2)
    run.log([{"step": 3, "l1": 0.0}])
    with open(run.path / "log.jsonl", "a") as log:
        log.write('{"step": 4, "l1"')
    go(data, config, run, save_every=2, resume=True, stop_at=4)
    assert list(losses(run.path)) == [1, 2, 3, 4]
    assert losses(run.path)[3]["l1"] > 0


def test_a_run_that_is_asked_to_stop_saves_and_leaves_and_goes_on_as_if_it_had_not(data, config, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = go(data, config, straight)
    broken.asked_to_stop = "SIGTERM"
    with pytest.raises(Stopped):
        go(data, config, broken)
    assert broken.load_state()["step"] == 1
    assert checkpoint.load(broken.path / "sketch2face.safetensors").facts["steps"] == 1
    rest = go(data, config, RunFolder(broken.path), resume=True)
    assert same(rest.state_dict(), whole.state_dict())
    assert losses(broken.path) == losses(straight.path)


def test_the_checkpoint_is_there_once_the_state_is(data, config, new_run, monkeypatch):
    """Else a run killed in between would have finished without its last checkpoint."""
    run, save_state = new_run("run"), RunFolder.save_state

    def look(run, state):
        assert checkpoint.load(run.path / "sketch2face.safetensors").facts["steps"] == state["step"]
        assert (run.path / "losses.png").stat().st_size > 0
        save_state(run, state)

    monkeypatch.setattr(RunFolder, "save_state", look)
    go(data, config, run, save_every=4)


def test_a_run_that_was_stopped_before_its_first_save_starts_from_the_beginning(data, config, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    whole = go(data, config, straight)
    broken.log([{"step": 1, "l1": 0.0}])
    assert same(go(data, config, broken, resume=True).state_dict(), whole.state_dict())
    assert losses(broken.path) == losses(straight.path)


def test_a_finished_run_says_so(data, config, new_run, capsys):
    run = new_run("run")
    go(data, config, run)
    before = (run.path / "sketch2face.safetensors").read_bytes()
    go(data, config, run, resume=True)
    assert "finished its 6 steps already. Give more --epochs" in capsys.readouterr().out
    go(data, replace(config, epochs=4), run, resume=True, stop_at=5)
    assert "after step 6 of 8 already. Give a later --stop-at" in capsys.readouterr().out
    assert (run.path / "sketch2face.safetensors").read_bytes() == before


# --- one step


def batch(n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 256, 256, generator=rng).clamp(-1, 1), torch.rand(n, 3, 256, 256, generator=rng) * 2 - 1


@pytest.mark.parametrize("adversarial", ["bce", "least_squares", "hinge"])
@pytest.mark.parametrize("feature_weight", [0.0, 10.0])
def test_a_step_changes_every_weight_of_both_networks(config, adversarial, feature_weight):
    training = Training(replace(config, adversarial=adversarial, feature_weight=feature_weight), 10, CPU)
    before = {
        name: {k: v.clone() for k, v in training.state_dict()[name].items()} for name in ("generator", "discriminator")
    }
    result = training.train_step(*batch())
    assert result.keys() == {"d", "gan", "l1"} | ({"features"} if feature_weight else set())
    for name, weights in before.items():
        still = [key for key, value in getattr(training, name).named_parameters() if torch.equal(value, weights[key])]
        assert not still, name


def test_the_generator_step_leaves_the_discriminator_alone(config):
    """After a whole step its gradients are still those of its own loss, and nothing of the generator's."""
    calm = replace(config.generator, dropout=0.0)
    training = Training(replace(config, generator=calm, learning_rate=0.0, learning_rate_d=0.0), 10, CPU)
    source, target = batch()
    training.train_step(source, target)
    fake = training.generator(source).detach()
    logits = training.discriminator(source, target), training.discriminator(source, fake)
    parameters = list(training.discriminator.parameters())
    own = torch.autograd.grad(discriminator_loss(*logits, config.adversarial), parameters)
    assert all(torch.allclose(p.grad, expected, rtol=1e-3, atol=1e-6) for p, expected in zip(parameters, own))
    assert all(p.requires_grad for p in parameters), "the next step must be able to train it"


def test_one_picture_can_be_learnt_by_heart(config, portrait):
    photo = portrait(0, 64)
    source, target = to_tensor(draw_lines(photo)).expand(2, -1, -1, -1), to_tensor(photo).expand(2, -1, -1, -1)
    small = replace(config, generator=replace(config.generator, depth=5), learning_rate=2e-3, l1_weight=100.0)
    training = Training(small, 10_000, CPU)
    l1 = [float(training.train_step(source, target)["l1"]) for _ in range(40)]
    assert np.mean(l1[-5:]) < 0.6 * np.mean(l1[:3])


def test_networks_start_alike_for_one_seed(config):
    assert same(Training(config, 10, CPU).state_dict(), Training(config, 10, CPU).state_dict())
    other = Training(replace(config, seed=1), 10, CPU)
    assert not same(other.state_dict()["generator"], Training(config, 10, CPU).state_dict()["generator"])


# --- what a run leaves behind


def test_a_run_leaves_a_checkpoint_for_the_app_and_pictures_to_look_at(data, config, new_run):
    run = new_run("run")
    training = go(data, config, run, sample_every=4)
    predictor = Pix2PixPredictor.from_checkpoint(run.path / "sketch2face.safetensors")
    assert predictor.predict(random_doodle(0)).size == (256, 256)
    assert predictor.adversarial == "least_squares"
    loaded = checkpoint.load(run.path / "sketch2face.safetensors", "sketch2face")
    assert (loaded.facts["steps"], loaded.facts["images"]) == (6, 12)
    assert Pix2PixConfig.from_dict(loaded.facts["recipe"]) == config
    for key, value in training.ema.module.state_dict().items():
        assert torch.allclose(loaded.weights["generator"][key].float(), value.float(), rtol=1e-3, atol=1e-5), key
    assert sorted(path.name for path in (run.path / "samples").iterdir()) == ["0000004.jpg", "0000006.jpg"]
    assert not list(run.path.rglob("*.partial"))


def test_pairs_on_disk_can_be_trained_on(tmp_path, config, new_run, portrait):
    for split in ("train", "val"):
        for half in ("source", "target"):
            (tmp_path / "pairs" / split / half).mkdir(parents=True)
            for seed in range(2):
                portrait(seed).save(tmp_path / "pairs" / split / half / f"{seed}.png")
    colour = replace(config.generator, in_channels=3), replace(config.discriminator, source_channels=3)
    for networks in ((config.generator, config.discriminator), colour):
        changed = replace(config, generator=networks[0], discriminator=networks[1])
        run = new_run(f"run{networks[0].in_channels}")
        assert go(tmp_path / "pairs", changed, run, stop_at=1).step == 1


def test_pairs_of_any_sizes_are_scaled_to_that_of_the_network(tmp_path, config, new_run, portrait):
    for split, half in itertools.product(("train", "val"), ("source", "target")):
        (tmp_path / "pairs" / split / half).mkdir(parents=True)
        for seed, size in enumerate([(300, 200), (256, 256), (512, 512)]):
            portrait(seed).resize(size).save(tmp_path / "pairs" / split / half / f"{seed}.png")
    assert config.generator.multiple == 256
    assert go(tmp_path / "pairs", replace(config, batch_size=3), new_run("run"), stop_at=1).step == 1


def test_a_generator_for_rgb_can_be_trained_on_drawings(data, config, new_run):
    networks = {
        "generator": replace(
            config.generator, in_channels=3, norm="instance", upsampling="transposed", refine_channels=0
        ),
        "discriminator": replace(config.discriminator, source_channels=3),
    }
    assert go(data, replace(config, **networks, batch_size=1), new_run("run"), stop_at=1).step == 1


@pytest.mark.parametrize("save_every, last_good", [(2, 2), (3, 3)])
def test_losses_that_explode_stop_the_run_and_the_last_good_state_is_kept(
    data, config, new_run, monkeypatch, save_every, last_good
):
    step = Training.train_step

    def explode(training, source, target):
        if training.step == 3:
            source = source * float("nan")
        return step(training, source, target)

    monkeypatch.setattr(Training, "train_step", explode)
    run = new_run("run")
    with pytest.raises(RunError, match=r"nan.*lower --learning-rate"):
        go(data, config, run, save_every=save_every)
    state = run.load_state()
    assert state["step"] == last_good
    weights = checkpoint.load(run.path / "sketch2face.safetensors").weights
    assert all(value.isfinite().all() for part in weights.values() for value in part.values())
    monkeypatch.setattr(Training, "train_step", step)
    assert go(data, config, run, resume=True).step == 6


def test_workers_end_with_an_error_though_its_traceback_is_kept(data, config, new_run, monkeypatch):
    closed = []

    def feed(*_):
        try:
            yield torch.zeros(2, 1, 256, 256), torch.zeros(2, 2)  # no pictures
        finally:
            closed.append(True)

    monkeypatch.setattr(pix2pix, "batches", feed)
    with pytest.raises(RuntimeError) as error:
        go(data, config, new_run("run"))
    assert closed and error.value.__traceback__


def test_fewer_pictures_than_a_batch_are_an_error_and_no_finished_run(data, config, new_run):
    with pytest.raises(DataError, match=r"4 pictures.*batch of 5.*--batch-size"):
        go(data, replace(config, batch_size=5), new_run("run"))


# --- facades


def test_without_a_gan_weight_l1_alone_trains_the_generator(config):
    training = Training(replace(config, gan_weight=0.0), 10, CPU)
    before = {name: training.state_dict()[name] for name in ("generator", "discriminator")}
    before = {name: {key: value.clone() for key, value in state.items()} for name, state in before.items()}
    assert list(training.train_step(*batch())) == ["l1"]
    assert same(training.discriminator.state_dict(), before["discriminator"])
    assert not same(training.generator.state_dict(), before["generator"])
    assert training.step == 1


@pytest.fixture
def pairs(tmp_path, building):
    """Two batches of two, and three pairs held out."""
    for split, seeds in (("train", range(4)), ("val", range(4, 7))):
        for seed in seeds:
            for half, picture in zip(("source", "target"), building(seed)):
                (tmp_path / "pairs" / split / half).mkdir(parents=True, exist_ok=True)
                picture.save(tmp_path / "pairs" / split / half / f"{seed}.png")
    return tmp_path / "pairs"


@pytest.fixture
def facades(config) -> Pix2PixConfig:
    """The recipe of `best` with tiny networks, in the same arithmetic on every machine."""
    best = PRESETS["facades"]["best"]
    networks = {
        "generator": replace(best.generator, base_channels=4, refine_channels=4),
        "discriminator": replace(best.discriminator, base_channels=4),
    }
    return replace(best, **networks, epochs=3, batch_size=2, precision="float32")


def test_a_run_on_buildings_leaves_a_checkpoint_a_log_and_pictures(pairs, facades, new_run, building):
    run = new_run("run")
    assert facades.generator.noise and facades.zoom < 1
    train(pairs, "facades", facades, run, workers=0, sample_every=4, save_every=4)
    predictor = Pix2PixPredictor.from_checkpoint(run.path / "facades.safetensors")
    label_map = building(9)[0]
    assert predictor.task.name == "facades"
    assert predictor.predict(label_map) == predictor.predict(label_map)
    assert predictor.predict(label_map) != predictor.predict(building(8)[0])
    assert list(losses(run.path)) == [1, 2, 3, 4, 5, 6]
    assert all(record.keys() == {"d", "gan", "l1", "features"} for record in losses(run.path).values())
    assert (run.path / "losses.png").is_file()
    assert sorted(path.name for path in (run.path / "samples").iterdir()) == ["0000004.jpg", "0000006.jpg"]


def test_the_samples_are_the_held_out_pairs_as_they_are(pairs, facades, building):
    sources, targets = fixed_drawings(pairs, facades)
    expected = zip(*(building(seed) for seed in range(4, 7)))
    for tensor, pictures in zip((sources, targets), expected):
        assert torch.equal(tensor, torch.cat([to_tensor(picture) for picture in pictures]))


def test_a_resumed_run_with_noise_ends_as_if_it_had_never_stopped(pairs, facades, new_run):
    straight, broken = new_run("straight"), new_run("broken")
    options = {"workers": 0, "sample_every": 2, "save_every": 3}
    whole = train(pairs, "facades", facades, straight, **options)
    train(pairs, "facades", facades, broken, stop_at=3, **options)
    rest = train(pairs, "facades", facades, broken, resume=True, **options)
    assert rest.step == whole.step == 6
    assert same(rest.state_dict(), whole.state_dict())
    assert losses(broken.path) == losses(straight.path)
    noise = [value for name, value in rest.generator.named_parameters() if value.ndim == 4 and value.shape[0] == 1]
    assert len(noise) == 5 and all(weight.any() for weight in noise), "the noise was trained"


def test_a_run_may_go_on_with_other_losses(pairs, facades, new_run):
    run = new_run("run")
    train(pairs, "facades", facades, run, workers=0, stop_at=2)
    train(pairs, "facades", replace(facades, feature_weight=0.0), run, workers=0, resume=True)
    assert [len(record) for record in losses(run.path).values()] == [4, 4, 3, 3, 3, 3]


def test_every_step_is_logged_however_rarely_the_run_is_saved(data, config, new_run, monkeypatch):
    def step(training, source, target):
        training.step += 1
        return {"l1": (source.mean() - target.mean()).abs()}

    monkeypatch.setattr(Training, "train_step", step)
    run = new_run("run")
    go(data, replace(config, epochs=13), run, stop_at=25, save_every=22, sample_every=100)
    logged = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in logged] == list(range(1, 26))
    seconds = [record["seconds"] for record in logged]
    assert seconds == sorted(seconds)
    assert all(isinstance(value, (int, float)) and np.isfinite(value) for r in logged for value in r.values())


# --- presets


def test_the_paper_preset_of_facades_has_the_published_numbers():
    """As for faces, but for least squares and a tenth of the epochs; map and photo make six channels."""
    paper = PRESETS["facades"]["paper"]
    assert (paper.generator, paper.discriminator) == (UNetConfig(), PatchGANConfig())
    assert (paper.epochs, paper.batch_size, paper.l1_weight) == (20, 1, 100.0)
    assert (paper.adversarial, paper.feature_weight, paper.ema, paper.zoom) == ("least_squares", 0.0, 0.0, 1.0)
    assert (paper.learning_rate, paper.learning_rate_d, paper.beta1, paper.beta2) == (2e-4, 2e-4, 0.5, 0.999)
    assert PatchDiscriminator(paper.discriminator).blocks[0][0].in_channels == 6


def test_the_paper_preset_has_the_published_numbers():
    """Isola et al., sections 3.3 and 6.2: Adam of 0.0002 and (0.5, 0.999), batch of one, L1 of 100, no EMA."""
    paper = PRESETS["sketch2face"]["paper"]
    assert (paper.generator, paper.discriminator) == (UNetConfig(), PatchGANConfig())
    assert (paper.learning_rate, paper.beta1, paper.beta2) == (2e-4, 0.5, 0.999)
    assert (paper.epochs, paper.batch_size, paper.l1_weight) == (200, 1, 100.0)
    assert (paper.adversarial, paper.feature_weight, paper.ema) == ("bce", 0.0, 0.0)
    assert (paper.generator.base_channels, paper.generator.dropout, paper.discriminator.halvings) == (64, 0.5, 3)


@pytest.mark.parametrize("task", PRESETS)
@pytest.mark.parametrize("preset", ["paper", "best"])
def test_a_preset_fits_together_and_survives_its_run_folder(task, preset):
    config = PRESETS[task][preset]
    assert config.generator.in_channels == config.discriminator.source_channels
    assert config.generator.out_channels == config.discriminator.target_channels
    assert Pix2PixConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_the_networks_of_a_facades_preset_turn_a_map_into_a_photo_and_judge_the_pair(preset):
    config = PRESETS["facades"][preset]
    small = replace(config.generator, base_channels=4), replace(config.discriminator, base_channels=4)
    training = Training(replace(config, generator=small[0], discriminator=small[1], precision="float32"), 10, CPU)
    source, target = torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)
    assert training.generator(source).shape == target.shape
    assert training.discriminator(source, target).shape == (1, 1, 30, 30)
    assert all(loss.isfinite() for loss in training.train_step(source, target).values())


# --- the command


@pytest.fixture
def command(monkeypatch, config, data):
    """`main` with the tiny networks as its best preset."""
    monkeypatch.setitem(PRESETS["sketch2face"], "best", config)

    def command(*arguments) -> None:
        main(["sketch2face", "--data", str(data), "--workers", "0", "--device", "cpu", *map(str, arguments)])

    return command


def test_the_command_trains_stops_and_goes_on(command, tmp_path, capsys):
    run = tmp_path / "run"
    command("--out", run, "--epochs", 2, "--l1-weight", 7.5, "--stop-at", 2)
    options = json.loads((run / "options.json").read_text())
    assert options["task"] == "sketch2face"
    assert (options["config"]["epochs"], options["config"]["l1_weight"]) == (2, 7.5)
    assert checkpoint.load(run / "sketch2face.safetensors").facts["steps"] == 2
    command("--resume", run)
    facts = checkpoint.load(run / "sketch2face.safetensors").facts
    assert (facts["steps"], facts["recipe"]["l1_weight"]) == (4, 7.5)
    assert f"python app.py --model sketch2face={run}/sketch2face.safetensors" in capsys.readouterr().out


def test_a_run_is_never_overwritten(command, tmp_path):
    run = tmp_path / "run"
    command("--out", run, "--stop-at", 1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match=f"holds a run already.*--resume {run}"):
        command("--out", run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_without_a_name_a_run_gets_the_next_number(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sketch2face-041").mkdir(parents=True)
    command("--stop-at", 1)
    assert (tmp_path / "runs" / "sketch2face-042" / "sketch2face.safetensors").is_file()


def test_a_folder_without_a_run_cannot_be_resumed(command, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*holds no run: options\.json is missing"):
        command("--resume", tmp_path)


def test_a_run_of_another_task_cannot_be_resumed(command, tmp_path):
    RunFolder.create(tmp_path / "run", "edges2cats", {"task": "edges2cats", "config": {}})
    with pytest.raises(SystemExit, match="is a run of edges2cats, not of sketch2face"):
        command("--resume", tmp_path / "run")


def test_a_run_stopped_before_its_first_save_may_be_resumed_or_started_anew(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pix2pix, "fixed_drawings", lambda *_: (_ for _ in ()).throw(RunError("stopped")))
        with pytest.raises(SystemExit, match="stopped"):
            command("--out", tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "other")
    command("--resume", tmp_path / "other", "--stop-at", 1)
    with monkeypatch.context() as patch:
        patch.setattr(pix2pix, "fixed_drawings", lambda *_: (_ for _ in ()).throw(RunError("stopped")))
        with pytest.raises(SystemExit, match="stopped"):
            command("--out", tmp_path / "run")
    command("--out", tmp_path / "run", "--stop-at", 1)  # nothing was lost, so the folder may be used
    for name in ("run", "other"):
        assert (tmp_path / name / "sketch2face.safetensors").is_file()


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_data_is_named_before_a_run_folder_is_made(command, data, tmp_path, split):
    (data / split).rename(data / "elsewhere")
    with pytest.raises(SystemExit, match=f"error: .*{split} is not a folder"):
        command("--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_broken_training_photo_is_named_and_a_held_out_one_ends_the_command(command, data, tmp_path, capsys):
    (data / "train" / "0.png").write_text("no photo")
    command("--out", tmp_path / "run")
    assert capsys.readouterr().out.count(f"warning: {data / 'train'}: '0.png' is not a picture") == 1
    (data / "val" / "4.png").write_text("no photo")
    with pytest.raises(SystemExit, match=r"error: .*val: '4\.png' is not a picture"):
        command("--out", tmp_path / "other")


@pytest.mark.parametrize("arguments", [("--epochs", "many"), ("--precision", "float32", "--learnin-rate", "1")])
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
    ],
)
def test_a_value_that_is_no_choice_is_named_with_the_choices(refused, option, said):
    refused(option, said)


def test_fine_tuning_from_what_is_no_checkpoint_ends_the_command_with_a_message(command, tmp_path):
    with pytest.raises(SystemExit, match="error: there is no checkpoint"):
        command("--out", tmp_path / "run", "--init", tmp_path / "gone.safetensors")


# --- fine-tuning and calm


def test_fine_tuning_starts_from_the_weights_that_fit(data, config, new_run, capsys):
    first = new_run("first")
    go(data, config, first)
    file = first.path / "sketch2face.safetensors"
    wider = replace(config, generator=replace(config.generator, refine_channels=8))
    tuned = go(data, replace(wider, learning_rate=0.0), new_run("second"), init=file, stop_at=1)
    assert "tensors of the generator" in capsys.readouterr().out
    weights = checkpoint.load(file).weights["generator"]
    assert torch.equal(tuned.generator.state_dict()["downs.3.1.weight"], weights["downs.3.1.weight"])
    assert tuned.generator.paint.refine[0].weight.shape != weights["paint.refine.0.weight"].shape


def test_the_discriminator_has_no_say_over_empty_paper():
    fake = torch.zeros(3, 3, 8, 8, requires_grad=True)
    source = torch.ones(3, 1, 8, 8)
    source[1, :, 0, :2] = -1  # 2 of 64 pixels
    source[2, :, :4] = -1
    faded = fade_gradient(fake, source, fade_ink=4 / 64)
    assert torch.equal(faded, fake)
    faded.sum().backward()
    assert fake.grad.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert fade_gradient(fake, source, fade_ink=0.0) is fake


# --- speed and size


def test_a_profile_keeps_nothing_and_prints_where_the_time_goes(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command("--epochs", 4, "--profile", 2, "--trace", tmp_path / "trace.json")
    said = capsys.readouterr().out
    for part in ("waiting for data", "generator, backward", "discriminator, optimizer", "moving average", "saving ("):
        assert f"\n{part}" in said, part
    assert (tmp_path / "trace.json").is_file() and not (tmp_path / "runs").exists()
    assert "Done." not in said


@pytest.mark.parametrize(
    "options, said",
    [
        (("--profile", "2"), "--profile keeps nothing; leave out --out and --resume."),
        (("--batch-size", "0"), "batch_size is 0; it must be at least 1"),
        (("--epochs", "0"), "epochs is 0; it must be at least 1"),
        (
            ("--accumulate", "3"),
            "a batch of 2 pictures cannot be dealt to 1 process(es) in 3 equal part(s) each. Choose another "
            "--batch-size (that of all together), number of processes or --accumulate.",
        ),
        (
            ("--compile", "graph"),
            "--compile graph is for a GPU, and the device is cpu. Give --device cuda or another MODE, or leave it out.",
        ),
        (
            ("--compile", "graph", "--accumulate", "2"),
            "--compile graph takes each batch as a whole. Leave out --accumulate, or give another MODE.",
        ),
    ],
)
def test_what_makes_no_run_is_refused(refused, options, said):
    refused(options, said)


@pytest.mark.parametrize("option", ["--save-every", "--sample-every", "--stop-at", "--accumulate"])
def test_counts_below_one_are_refused(command, option, capsys):
    with pytest.raises(SystemExit):
        command(option, "0")
    assert f"argument {option}: 0 is less than 1" in capsys.readouterr().err


def test_a_resumed_run_on_shards_ends_as_if_it_had_never_stopped(tmp_path, config, new_run, portrait):
    faces = []
    for i in range(6):
        data = io.BytesIO()
        portrait(i).save(data, "PNG")
        faces.append({"name": str(i), "target": data.getvalue(), "layout": "null"})
    write_shard(tmp_path / "shards" / "train" / "0.parquet", faces[:4])
    write_shard(tmp_path / "shards" / "val" / "0.parquet", faces[4:])
    straight, broken = new_run("straight"), new_run("broken")
    whole = go(tmp_path / "shards", config, straight, stop_at=3)
    go(tmp_path / "shards", config, broken, stop_at=2)
    rest = go(tmp_path / "shards", config, broken, resume=True, stop_at=3)
    assert same(rest.state_dict(), whole.state_dict())
    assert losses(broken.path) == losses(straight.path)
    assert checkpoint.load(straight.path / "sketch2face.safetensors").facts["data"] == "4 pictures"


def test_compile_is_asked_for_the_generator_and_the_discriminator(config, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, mode: asked.append((type(module).__name__, mode)))
    monkeypatch.setattr(torch, "compile", lambda function, mode: asked.append((function.__name__, mode)) or function)
    Training(config, 10, CPU, compiled="reduce-overhead")
    assert asked == [("UNetGenerator", "reduce-overhead"), ("features", "reduce-overhead")]
    asked.clear()
    Training(config, 10, CPU)
    assert not asked
