import threading

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import FaceMixer, checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError
from gan_core.vae_gan import VAE, VAEConfig
from train.mixture import fit_latent_space

CONFIG = VAEConfig(latent=8, widths=(4, 4, 8, 8, 8), residual=1, upsampling="mixed", refine_channels=4)


@pytest.fixture
def vae(lively) -> VAE:
    return lively(VAE(CONFIG)).eval()


@pytest.fixture
def space():
    return fit_latent_space(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), clusters=2)


@pytest.fixture
def mixer(vae, space) -> FaceMixer:
    return FaceMixer(vae, space)


def difference(a: Image.Image, b: Image.Image) -> float:
    """Largest difference of two pictures, in levels."""
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max())


# --- checkpoint


def test_a_mixer_comes_back_from_its_checkpoint(tmp_path, vae, space, mixer, portrait):
    file = tmp_path / "vaegan.safetensors"
    checkpoint.save(file, "vaegan", {"vae": vae, "latents": space})
    loaded = FaceMixer.from_checkpoint(file)
    face = portrait(0, 96)
    assert np.allclose(loaded.encode(face), mixer.encode(face), rtol=0.02, atol=0.02)
    assert np.allclose(loaded.sample(4, seed=2), mixer.sample(4, seed=2), rtol=0.02, atol=0.02)
    assert np.allclose(loaded.directions, mixer.directions, atol=1e-3)
    assert np.allclose(loaded.deviations, mixer.deviations, rtol=1e-3)
    assert difference(loaded.decode(np.ones(8)), mixer.decode(np.ones(8))) <= 4


def test_a_checkpoint_without_a_latent_space_samples_from_the_prior(tmp_path, vae):
    checkpoint.save(tmp_path / "vaegan.safetensors", "vaegan", {"vae": vae})
    samples = FaceMixer.from_checkpoint(tmp_path / "vaegan.safetensors").sample(500)
    assert samples.std() == pytest.approx(1, abs=0.05)


def test_a_checkpoint_of_another_task_is_refused(tmp_path, generator):
    checkpoint.save(tmp_path / "x.safetensors", "sketch2face", {"generator": generator})
    with pytest.raises(CheckpointError, match="checkpoint for sketch2face, not for vaegan"):
        FaceMixer.from_checkpoint(tmp_path / "x.safetensors")


# --- encode and decode


def test_what_the_mixer_computes_is_what_the_network_computes(vae, mixer, portrait):
    face = portrait(1, 96)
    picture = torch.from_numpy(np.asarray(face, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        mean, _ = vae.encoder(picture)
        decoded = vae.decoder(mean)[0].permute(1, 2, 0).numpy() * 255
    assert np.allclose(mixer.encode(face), mean[0].numpy(), atol=1e-3)
    assert np.abs(np.asarray(mixer.decode(mean[0].numpy()), np.float32) - decoded).mean() < 2  # bfloat16, rounded


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (400, 60), (50, 700), (96, 96)])
def test_any_picture_can_be_encoded(mixer, mode, size):
    z = mixer.encode(Image.new(mode, size))
    assert z.shape == (8,) and z.dtype == np.float32 and np.isfinite(z).all()


def test_the_centred_square_is_what_counts(mixer, portrait):
    face = portrait(0, 96)
    wide = Image.new("RGB", (300, 96), "red")
    wide.paste(face, (102, 0))
    assert np.array_equal(mixer.encode(wide), mixer.encode(face))


def test_a_picture_without_pixels_is_refused(mixer):
    with pytest.raises(PictureError, match="no pixels"):
        mixer.encode(Image.new("RGB", (0, 5)))


def test_one_latent_gives_a_picture_and_several_give_a_list(mixer):
    z = mixer.sample(60, seed=1)
    one, many = mixer.decode(z[0]), mixer.decode(z)
    assert (one.size, one.mode, len(many)) == ((96, 96), "RGB", 60)
    assert isinstance(mixer.decode(z[:1]), list)
    assert all(difference(mixer.decode(z[i]), many[i]) <= 4 for i in (0, 49, 50, 59)), "a batch gives the same faces"


@pytest.mark.parametrize(
    "z, message",
    [
        (np.zeros(7), r"\(7,\).*must be \(8,\) or \(N, 8\)"),
        (np.zeros((2, 2, 8)), "must be"),
        (np.full(8, np.nan), "not finite"),
        (np.zeros((1001, 8)), "at most 1000"),
    ],
)
def test_latents_that_are_none_are_refused(mixer, z, message):
    with pytest.raises(ValueError, match=message):
        mixer.decode(z)


# --- sample, mix, interpolate


def test_samples_are_decided_by_their_seed(mixer):
    assert np.array_equal(mixer.sample(3, seed=5), mixer.sample(3, seed=5))
    assert not np.array_equal(mixer.sample(3, seed=5), mixer.sample(3, seed=6))
    assert mixer.sample(2).shape == (2, 8)


@pytest.mark.parametrize("count", [-1, 1001])
def test_too_many_samples_are_refused(mixer, count):
    with pytest.raises(ValueError, match="at most 1000"):
        mixer.sample(count)


def test_a_mix_of_one_is_that_face_and_no_weights_are_equal_weights(mixer):
    z = mixer.sample(3, seed=1)
    assert difference(mixer.mix(z, [0, 2, 0]), mixer.decode(z[1])) == 0
    assert difference(mixer.mix(z, [0, 0, 0]), mixer.mix(z, [1, 1, 1])) == 0
    between, alone = mixer.blend(z, [[1, 1, 0], [0, 0, 3]])
    assert np.allclose(alone, z[2], atol=1e-5)
    offsets = z - mixer.mean
    out, straight = between - mixer.mean, (offsets[0] + offsets[1]) / 2
    assert np.linalg.norm(out) == pytest.approx(np.linalg.norm(offsets[:2], axis=1).mean(), rel=1e-4)
    assert np.allclose(out / np.linalg.norm(out), straight / np.linalg.norm(straight), atol=1e-5)


def test_a_film_begins_and_ends_with_its_faces(mixer):
    a, b = mixer.sample(2, seed=1)
    film = mixer.interpolate(a, b, steps=7)
    assert len(film) == 7
    assert difference(film[0], mixer.decode(a)) <= 4 and difference(film[-1], mixer.decode(b)) <= 4
    straight = mixer.interpolate(a, b, steps=3, spherical=False)
    assert difference(straight[1], mixer.decode((a + b) / 2)) <= 4


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_a_film_needs_two_pictures_and_has_an_end(mixer, steps):
    with pytest.raises(ValueError, match="between 2 and 1000"):
        mixer.interpolate(np.zeros(8), np.ones(8), steps)


def test_a_push_is_counted_in_standard_deviations_and_truncation_in_shares(mixer):
    z = mixer.sample(2, seed=1)
    pushed = mixer.space.coordinates(torch.from_numpy(mixer.push(z, [0, 2]))).numpy()
    change = pushed - mixer.space.coordinates(torch.from_numpy(z)).numpy()
    assert np.allclose(change, [[0, 2] + [0] * 6] * 2, atol=1e-4)
    assert np.array_equal(mixer.push(z, []), z)
    assert np.allclose(mixer.truncate(z, 0), mixer.mean) and np.allclose(mixer.truncate(z, 1), z, atol=1e-6)
    assert np.allclose(mixer.truncate(z, 0.5) - mixer.mean, (z - mixer.mean) / 2, atol=1e-6)


def test_what_lies_off_the_important_directions_is_strange(mixer):
    assert mixer.strangeness(mixer.mean) == 0
    assert mixer.strangeness(mixer.push(mixer.mean, [3, 3])) == pytest.approx(0, abs=1e-3)
    assert mixer.strangeness(mixer.push(mixer.mean, [0, 0, 0, 0, 2, -2, 2, -2])) == pytest.approx(2, abs=1e-3)
    samples = [mixer.strangeness(z) for z in mixer.sample(100)]
    assert np.mean(samples) == pytest.approx(1, abs=0.2)


def test_directions_have_the_names_that_the_checkpoint_knows(tmp_path, vae):
    file = tmp_path / "vaegan.safetensors"
    checkpoint.save(file, "vaegan", {"vae": vae}, {"direction_names": ["hair", "gaze"]})
    assert FaceMixer.from_checkpoint(file).direction_names == ("hair", "gaze")
    checkpoint.save(file, "vaegan", {"vae": vae})
    assert FaceMixer.from_checkpoint(file).direction_names == ()


# --- threads


def test_threads_do_not_disturb_each_other(mixer, portrait):
    z, face = mixer.sample(4, seed=0), portrait(0)
    expected = [np.asarray(mixer.decode(x)) for x in z], mixer.encode(face), mixer.sample(2, seed=9)
    wrong = []

    def work(i: int) -> None:
        for _ in range(5):
            same = np.array_equal(np.asarray(mixer.decode(z[i])), expected[0][i])
            same &= np.array_equal(mixer.encode(face), expected[1])
            same &= np.array_equal(mixer.sample(2, seed=9), expected[2])
            if not same:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_compiled_decoder_answers_as_pytorch_does(vae, space, monkeypatch):
    monkeypatch.setattr("gan_core.mixer.has_bfloat16", lambda device: False)
    mixer = FaceMixer(vae, space)
    latents = 3 * mixer.sample(5)
    before = mixer.decode(latents)
    assert mixer.accelerate()
    assert mixer.decode(mixer.sample(0)) == []
    assert mixer._decode is not mixer.decoder
    after = mixer.decode(latents)
    assert max(map(difference, before, after)) <= 1
    assert difference(after[0], after[1]) > 5
    assert mixer.decode(latents[0]) == after[0]
