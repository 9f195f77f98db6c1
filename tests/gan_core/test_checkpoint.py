import json
import os
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from gan_core import checkpoint
from gan_core.checkpoint import FORMAT, VERSION, CheckpointError
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.unet import UNetConfig, UNetGenerator


@pytest.fixture
def saved(tmp_path, generator, discriminator):
    path = tmp_path / "new" / "sketch2face.safetensors"
    checkpoint.save(path, "sketch2face", {"generator": generator, "discriminator": discriminator}, {"steps": 7})
    return path


@pytest.fixture
def rewrite(saved):
    """Writes the file anew with other metadata or other weights, None for left out."""

    def rewrite(metadata: dict | None = None, weights: dict | None = None):
        with safe_open(saved, framework="pt") as file:
            found = file.metadata()
        merged = {name: value for name, value in (found | (metadata or {})).items() if value is not None}
        tensors = {name: value for name, value in (load_file(saved) | (weights or {})).items() if value is not None}
        save_file(tensors, saved, merged)

    return rewrite


def build(path) -> UNetGenerator:
    return checkpoint.load(path, "sketch2face").build("generator", UNetGenerator, UNetConfig)


def test_networks_come_back_as_they_were_saved(saved, generator, discriminator):
    loaded = checkpoint.load(saved)
    assert (loaded.task, loaded.facts) == ("sketch2face", {"steps": 7})
    for name, original, config in (
        ("generator", generator, UNetConfig),
        ("discriminator", discriminator, PatchGANConfig),
    ):
        network = loaded.build(name, type(original), config)
        assert network.config == original.config
        assert not network.training
        for key, value in original.state_dict().items():
            back = network.state_dict()[key]
            assert back.dtype == value.dtype
            assert torch.allclose(back, value, rtol=1e-3, atol=1e-6), key


def test_the_weights_are_stored_in_half_the_bytes(saved):
    assert {value.dtype for value in load_file(saved).values()} == {torch.float16, torch.int64}


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_weights_that_are_not_finite_never_replace_good_ones(saved, generator, bad):
    before = saved.read_bytes()
    with torch.no_grad():
        next(generator.parameters()).view(-1)[0] = bad
    with pytest.raises(CheckpointError, match=r"in generator\..* are not finite, so .* was not written.*float32"):
        checkpoint.save(saved, "sketch2face", {"generator": generator})
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_what_is_too_large_for_half_the_bytes_keeps_its_value(tmp_path):
    """Running variances of a deep network can pass 65,504, where float16 ends."""
    norm = nn.BatchNorm2d(3)
    norm.config = UNetConfig()
    norm.running_var[1] = 90_953.2
    checkpoint.save(tmp_path / "x.safetensors", "sketch2face", {"norm": norm})
    assert checkpoint.load(tmp_path / "x.safetensors").weights["norm"]["running_var"].tolist() == [1, 90_953.203125, 1]
    assert load_file(tmp_path / "x.safetensors")["norm.running_mean"].dtype == torch.float16


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_weights_that_are_no_numbers_are_refused(rewrite, saved, bad):
    name, weight = next((key, value) for key, value in load_file(saved).items() if value.is_floating_point())
    rewrite(weights={name: torch.full_like(weight, bad)})
    with pytest.raises(CheckpointError, match=r"no numbers.*train it again"):
        checkpoint.load(saved)


def test_facts_can_be_added_and_the_weights_stay_bit_for_bit(saved):
    before = load_file(saved)
    checkpoint.add_facts(saved, names=["a", "b"])
    after = load_file(saved)
    assert checkpoint.load(saved).facts == {"steps": 7, "names": ["a", "b"]}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


def test_the_answer_survives_the_way_through_the_file(saved, generator):
    source = torch.randn(1, 1, 256, 256)
    with torch.inference_mode():
        assert torch.allclose(build(saved)(source), generator(source), atol=0.02)


def test_networks_in_the_memory_layout_of_training_can_be_saved(tmp_path, generator):
    checkpoint.save(
        tmp_path / "x.safetensors", "sketch2face", {"generator": generator.to(memory_format=torch.channels_last)}
    )
    assert checkpoint.load(tmp_path / "x.safetensors").facts == {}


def test_spectral_norm_can_be_saved(tmp_path):
    net = PatchDiscriminator(PatchGANConfig(base_channels=4, norm="spectral")).eval()
    checkpoint.save(tmp_path / "x.safetensors", "sketch2face", {"discriminator": net})
    back = checkpoint.load(tmp_path / "x.safetensors").build("discriminator", PatchDiscriminator, PatchGANConfig)
    pair = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(back(*pair), net(*pair), atol=0.01)


def test_the_file_appears_whole_or_not_at_all(saved, generator, monkeypatch):
    assert [path.name for path in saved.parent.iterdir()] == ["sketch2face.safetensors"]
    before = saved.read_bytes()

    def torn(tensors, path, metadata):
        path.write_bytes(b"half a fi")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", torn)
    with pytest.raises(OSError):
        checkpoint.save(saved, "sketch2face", {"generator": generator})
    assert saved.read_bytes() == before


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=f"no checkpoint at {path}"):
            checkpoint.load(path)


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"damaged.*Fetch it again, or train it again"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(500), b"PK\x03\x04" + b"x" * 500, b"\xff" * 64, b"hello"]
)
def test_what_is_no_safetensors_file_is_refused(saved, data):
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"no safetensors file.*Fetch it again"):
        checkpoint.load(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"not written by this project. Use a file"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_checkpoint_of_another_task_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"for sketch2face, not for edges2cats. Put it"):
        checkpoint.load(saved, "edges2cats")


@pytest.mark.parametrize("others", [{}, {"facts": None, "configs": "{"}])
def test_a_newer_version_asks_for_newer_code_whatever_else_is_new(rewrite, saved, others):
    rewrite({"version": str(VERSION + 1)} | others)
    with pytest.raises(CheckpointError, match=f"version {VERSION + 1}.*Update the code"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    "metadata",
    [{"version": "new"}, {"version": None}, {"task": None}, {"configs": None}, {"configs": "{"}, {"facts": "x"}],
)
def test_a_damaged_description_is_refused(rewrite, saved, metadata):
    rewrite(metadata)
    with pytest.raises(CheckpointError, match="Fetch the file again"):
        checkpoint.load(saved)


def test_a_network_that_is_not_inside_is_named(saved):
    with pytest.raises(CheckpointError, match="holds no encoder; it has generator, discriminator"):
        checkpoint.load(saved).build("encoder", UNetGenerator, UNetConfig)


@pytest.mark.parametrize(
    "change",
    {
        "missing": {"generator.downs.0.0.weight": None},
        "unknown": {"generator.downs.0.9.weight": torch.zeros(1)},
        "of another shape": {"generator.downs.0.0.weight": torch.zeros(2, 2)},
    }.values(),
)
def test_a_weight_that_does_not_fit_is_refused(rewrite, saved, change):
    rewrite(weights=change)
    with pytest.raises(CheckpointError, match=r"(?s)downs\.0\..*train it again"):
        build(saved)


@pytest.mark.parametrize("change", [{"attention": True}, {"norm": "layer"}, {"depth": 7}, {"base_channels": "many"}])
def test_a_config_that_this_code_does_not_know_is_refused(rewrite, saved, change, unet_config):
    rewrite({"configs": json.dumps({"generator": asdict(unet_config) | change})})
    with pytest.raises(CheckpointError, match=r"(?s)does not fit UNetGenerator.*train it again"):
        build(saved)


def test_weights_without_a_config_are_refused(rewrite, saved):
    rewrite({"configs": "{}"})
    with pytest.raises(CheckpointError, match="train it again"):
        build(saved)


def test_what_is_written_says_whose_it_is(saved):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["version"]) == (FORMAT, str(VERSION))


@pytest.mark.parametrize("text", ["null", "5", "[]", '{"generator": 5}', '{"generator": null}', "[" * 50_000])
def test_a_description_of_another_kind_is_damaged(tmp_path, text):
    metadata = {"format": "gan_core", "version": "1", "task": "facades", "configs": text, "facts": "{}"}
    checkpoint.write(tmp_path / "a.safetensors", {"generator.a": torch.ones(1)}, metadata)
    with pytest.raises(CheckpointError, match="Fetch the file again"):
        checkpoint.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [{"base_channels": 10**9}, {"base_channels": 2_000}, {"depth": 10**9}, {"dropout": float("nan")}, {"norm": {}}],
)
def test_a_description_that_asks_for_too_much_is_refused_before_memory_is_taken(tmp_path, generator, change):
    checkpoint.save(tmp_path / "a.safetensors", "sketch2face", {"generator": generator})
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    loaded.configs["generator"] |= change
    with pytest.raises(CheckpointError, match="does not fit UNetGenerator"):
        loaded.build("generator", UNetGenerator, UNetConfig)
