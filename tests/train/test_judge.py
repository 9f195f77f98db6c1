import numpy as np
import pytest
import torch
from torch import nn

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.image import to_tensor
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import FACADES
from train import judge
from train.data import DataError
from train.judge import Judge, LabelledFacades, load_judge, main, read_labels, train_judge

TINY = MaxPoolUNetConfig(in_channels=12, out_channels=len(FACADES), widths=(8, 16))

UNSEEN = range(20, 24)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(judge, "JUDGE", TINY)
    monkeypatch.setattr(judge, "LEARNING_RATE", 2e-2)


@pytest.fixture
def data(tmp_path, building):
    for seed in range(8):
        for half, picture in zip(("source", "target"), building(seed, 64)):
            (tmp_path / "data" / "train" / half).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "data" / "train" / half / f"{seed}.png")
    return tmp_path / "data"


def accuracy(network: Judge, building, seeds) -> float:
    maps, photos = zip(*(building(seed, 64) for seed in seeds))
    labels = torch.from_numpy(np.stack([FACADES.to_labels(m) for m in maps])).long()
    return float((read_labels(network, torch.cat([to_tensor(p) for p in photos])) == labels).float().mean())


def test_a_trained_judge_reads_buildings_it_has_never_seen(data, tmp_path, building):
    file = tmp_path / "judge.safetensors"
    trained = train_judge(data, file, epochs=40, workers=0)
    labels = np.stack([FACADES.to_labels(building(seed, 64)[0]) for seed in UNSEEN])
    commonest = np.bincount(labels.ravel()).max() / labels.size
    assert accuracy(trained, building, UNSEEN) > commonest + 0.1
    loaded = load_judge(file)
    assert not loaded.training
    assert loaded.config == TINY
    assert accuracy(loaded, building, UNSEEN) == pytest.approx(accuracy(trained, building, UNSEEN), abs=0.01)
    assert checkpoint.load(file).facts == {"epochs": 40, "data": "8 photos"}


def test_one_seed_trains_one_judge(data, tmp_path):
    judges = [train_judge(data, tmp_path / "x.safetensors", epochs=2, seed=s, workers=0) for s in (0, 0, 1)]
    weights = [torch.cat([p.flatten() for p in network.parameters()]) for network in judges]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fewer_photos_than_a_batch_are_enough(data, tmp_path):
    for half in ("source", "target"):
        for seed in range(3, 8):
            (data / "train" / half / f"{seed}.png").unlink()
    train_judge(data, tmp_path / "judge.safetensors", epochs=1, workers=0)
    assert load_judge(tmp_path / "judge.safetensors").config == TINY


def test_every_parameter_gets_a_gradient():
    network = Judge(TINY).train()
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("count, size", [(1, (64, 64)), (11, (32, 48))])
def test_each_pixel_of_each_photo_gets_a_class(count, size, lively):
    network = lively(Judge(TINY)).eval()
    labels = read_labels(network, torch.rand(count, 3, *size) * 2 - 1)
    assert (labels.shape, labels.dtype) == ((count, *size), torch.int64)
    assert 0 <= labels.min() < labels.max() < len(FACADES)


def test_the_class_is_that_of_the_largest_logit():
    network = Judge(TINY).eval()
    nn.init.zeros_(network.unet.head.weight)
    for number in (0, 7, 11):
        nn.init.constant_(network.unet.head.bias, 0.0)
        network.unet.head.bias.data[number] = 1.0
        assert (read_labels(network, torch.zeros(1, 3, 16, 16)) == number).all()


def test_labels_and_photo_are_cropped_together(data, building):
    """The tones of a photo tell its classes, whatever the light: within a class they differ little."""
    photos = LabelledFacades(data / "train", seed=1, zoom=0.7)
    for epoch in range(5):
        photo, labels = photos[epoch, 2]
        assert (photo.shape, labels.shape) == ((3, 64, 64), (64, 64))
        assert (photo.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert set(labels.unique().tolist()) <= set(np.unique(FACADES.to_labels(building(2, 64)[0])).tolist())
        within = torch.stack([photo[:, labels == n].var(dim=1) * (labels == n).float().mean() for n in labels.unique()])
        assert within.sum(0).mean() < 0.2 * photo.flatten(1).var(dim=1).mean()


def test_light_and_contrast_vary_but_an_item_is_the_same_each_time(data):
    photos = LabelledFacades(data / "train", seed=1, zoom=1.0)
    photo, labels = photos[0, 2]
    assert all(map(torch.equal, photos[0, 2], (photo, labels)))
    levels = [(float(p.mean()), float(p.std())) for p, _ in (photos[epoch, 2] for epoch in range(12))]
    means, contrasts = zip(*levels)
    assert max(means) - min(means) > 0.15
    assert max(contrasts) > 1.15 * min(contrasts)


def test_another_checkpoint_is_no_judge(tmp_path, generator):
    file = tmp_path / "sketch2face.safetensors"
    checkpoint.save(file, "sketch2face", {"generator": generator})
    with pytest.raises(CheckpointError, match="is a checkpoint for sketch2face, not for judge"):
        load_judge(file)
    checkpoint.save(file, "judge", {"generator": generator})
    with pytest.raises(CheckpointError, match="holds no judge"):
        load_judge(file)


def test_the_command_writes_the_judge(data, tmp_path, capsys):
    file = tmp_path / "new" / "judge.safetensors"
    main(["--data", str(data), "--out", str(file), "--epochs", "1", "--workers", "0", "--device", "cpu"])
    assert f"Done: {file}" in capsys.readouterr().out
    assert load_judge(file).config == TINY


def test_the_command_ends_with_a_message_where_there_are_no_pairs(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*target is not a folder"):
        main(["--data", str(tmp_path), "--out", str(tmp_path / "x.safetensors"), "--device", "cpu"])
    with pytest.raises(DataError):
        train_judge(tmp_path, tmp_path / "x.safetensors", epochs=1, workers=0)
