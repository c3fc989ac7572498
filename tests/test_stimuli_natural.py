"""Photographs keep linear luminance and natural spectra; patches and paths are what they say."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from pcsim import stimuli
from pcsim.stimuli import sequences
from pcsim.stimulus import check_stimulus


def slope_of_amplitude(image: np.ndarray) -> float:
    """Return the slope of log amplitude over log frequency between 4 cycles and half Nyquist."""
    n = min(image.shape)
    window = np.outer(np.hanning(n), np.hanning(n))
    square = image[:n, :n]
    square = (square - np.average(square, weights=window)) * window
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    edges = np.geomspace(4 / n, 0.25, 12)
    which = np.digitize(frequency, edges)
    power = np.abs(np.fft.fft2(square)) ** 2
    amplitude = [np.sqrt(power[which == i].mean()) for i in range(1, edges.size)]
    return np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(amplitude), 1)[0]


def test_photographs_are_all_there_with_source_and_licence():
    images = stimuli.photographs()
    assert list(images) == list(stimuli.PHOTOGRAPHS)
    assert len(images) == 10
    for name, image in images.items():
        assert image.ndim == 2
        assert min(image.shape) >= 300
        assert 0.0 <= image.min() < image.max() <= 1.0
        assert stimuli.PHOTOGRAPHS[name].licence
        assert stimuli.PHOTOGRAPHS[name].source


def test_photographs_have_natural_spectra():
    # Amplitude falls about as 1/f; single scenes scatter from 0.5 to 1.7, textures least steep.
    slopes = [slope_of_amplitude(image) for image in stimuli.photographs().values()]
    assert all(-1.7 < slope < -0.5 for slope in slopes)
    assert -1.3 < np.mean(slopes) < -0.8


def test_stimuli_import_no_image_library():
    code = "import sys, pcsim.stimuli; print([m for m in ('skimage', 'sklearn', 'PIL', 'av') "
    code += "if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_colour_becomes_luminance(tmp_path):
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    pixels[1] = [[255, 255, 255], [188, 188, 188], [5, 5, 5]]
    Image.fromarray(pixels).save(tmp_path / "colours.png")
    (image,) = stimuli.photographs(tmp_path).values()
    assert np.allclose(image[0], [0.2126, 0.7152, 0.0722])
    # 188 is the code of half luminance, and codes up to 10 lie on the straight part.
    assert image[1] == pytest.approx([1.0, 0.503, 5 / 255 / 12.92], abs=1e-3)


def test_a_folder_may_hold_many_kinds_of_file(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "b.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "c.png")
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 255\n" + grey.tobytes())
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "d.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    images = stimuli.photographs(str(tmp_path))
    assert list(images) == ["a.pgm", "b.png", "c.png", "d.PNG"]
    for image in images.values():
        assert np.allclose(image, images["a.pgm"], atol=1e-9)


@pytest.mark.parametrize("name", list(stimuli.PHOTOGRAPHS))
def test_prepared_luminance_is_linear_about_grey(name):
    (raw,) = stimuli.photographs(name).values()
    image = stimuli.preprocess(raw)
    assert image.min() >= 0.0
    assert image.max() <= 1.0
    assert image.mean() == pytest.approx(0.5, abs=0.01)
    kept = image < 1.0
    assert kept.mean() > 0.98
    assert np.corrcoef(image[kept], raw[kept])[0, 1] == pytest.approx(1.0, abs=1e-12)


def test_low_contrast_is_kept_as_it_was():
    raw = np.array([[0.1, 0.12], [0.08, 0.1]])
    image = stimuli.preprocess(raw, background=0.4)
    assert np.allclose(image / image.mean(), raw / raw.mean())
    assert image.mean() == pytest.approx(0.4)


def test_log_luminance_is_standard_and_blind_to_exposure(rng):
    raw = rng.lognormal(size=(30, 40))
    image = stimuli.preprocess(raw, kind="log")
    assert image.mean() == pytest.approx(0.0, abs=1e-12)
    assert image.std() == pytest.approx(1.0)
    assert np.allclose(stimuli.preprocess(3.7 * raw, kind="log"), image)


@pytest.mark.parametrize("preprocessing", ["luminance", "log"])
def test_patches_are_the_crops_that_they_say(preprocessing):
    patches = check_stimulus(
        stimuli.natural_patches((12, 20), n=30, seed=5, preprocessing=preprocessing)
    )
    assert len(set(patches.image.values)) > 3
    assert set(patches.preprocessing.values) == {preprocessing}
    images = stimuli.photographs()
    for patch in patches:
        image = stimuli.preprocess(images[str(patch.image.values)], kind=preprocessing)
        row, column = int(patch.crop_row), int(patch.crop_column)
        assert np.array_equal(patch[0], image[row : row + 12, column : column + 20])


def test_patches_reach_every_place(rng):
    image = rng.uniform(0.1, 1.0, (6, 7))
    patches = stimuli.natural_patches((5, 4), n=400, images={"tiny": image})
    assert set(zip(patches.crop_row.values, patches.crop_column.values, strict=True)) == {
        (row, column) for row in range(2) for column in range(4)
    }


def test_same_seed_same_patches():
    first, again, other = (
        stimuli.natural_patches((8, 8), n=6, seed=seed, images=["camera", "grass"])
        for seed in (1, 1, 2)
    )
    assert first.identical(again)
    assert not np.allclose(first, other)


def test_sampling_between_pixels_is_the_cubic_spline(rng):
    image = rng.normal(size=(30, 40))
    spline = scipy.ndimage.spline_filter(image, order=3)
    corner = np.array([[2.0, 3.0], [5.25, 7.5], [20.9, 24.01]])
    windows = sequences.sample_between_pixels(spline, corner, (6, 9))
    for window, (row, column) in zip(windows, corner, strict=True):
        place = np.meshgrid(row + np.arange(6), column + np.arange(9), indexing="ij")
        assert np.allclose(window, scipy.ndimage.map_coordinates(image, place, order=3), atol=1e-12)
    assert np.allclose(windows[0], image[2:8, 3:12], atol=1e-12)


def test_drift_spreads_as_two_d_t_along_each_axis(rng):
    steps, dt, diffusion = 8, 0.05, 0.03
    moved = np.empty((3000, 2))
    for i in range(len(moved)):
        path, saccade = stimuli.eye_movements(
            steps + 1,
            rng=rng,
            frame_duration=dt,
            room=(1e4, 1e4),
            diffusion=diffusion,
            saccade_rate=0.0,
        )
        assert not saccade.any()
        moved[i] = path[-1] - path[0]
    expected = 2 * diffusion * steps * dt
    standard_error = expected * np.sqrt(2 / len(moved))
    assert (np.abs((moved**2).mean(axis=0) - expected) < 4 * standard_error).all()
    assert (np.abs(moved.mean(axis=0)) < 4 * np.sqrt(expected / len(moved))).all()
    assert abs((moved[:, 0] * moved[:, 1]).mean()) < 4 * expected / np.sqrt(len(moved))


def test_saccades_come_at_their_rate_and_size(rng):
    n, dt, rate, size = 20_000, 0.02, 3.0, 2.5
    path, saccade = stimuli.eye_movements(
        n + 1,
        rng=rng,
        frame_duration=dt,
        room=(1e5, 1e5),
        diffusion=0.0,
        saccade_rate=rate,
        saccade_amplitude=size,
    )
    p = 1 - np.exp(-rate * dt)
    assert abs(saccade.mean() - p) < 4 * np.sqrt(p * (1 - p) / n)
    jump = np.hypot(*np.diff(path, axis=0).T)
    assert np.array_equal(jump > 1e-9, saccade[1:])
    count = saccade.sum()
    assert abs(jump[saccade[1:]].mean() - size) < 4 * size / np.sqrt(count)


def test_the_eye_stays_within_the_room_and_fills_it(rng):
    path, _ = stimuli.eye_movements(5000, rng=rng, frame_duration=0.1, room=(3.0, 0.0))
    assert path.min() >= 0.0
    assert path[:, 0].max() <= 3.0
    assert (path[:, 1] == 0.0).all()
    assert path[:, 0].mean() == pytest.approx(1.5, abs=0.2)
    assert path[:, 0].std() == pytest.approx(3.0 / np.sqrt(12), abs=0.1)


def test_sequences_start_where_they_say():
    clips = check_stimulus(stimuli.natural_sequences((8, 10), n=5, n_frames=3, seed=11))
    images = stimuli.photographs()
    for clip in clips:
        image = stimuli.preprocess(images[str(clip.image.values)])
        place = np.meshgrid(
            float(clip.start_row) + np.arange(8),
            float(clip.start_column) + np.arange(10),
            indexing="ij",
        )
        expected = np.clip(scipy.ndimage.map_coordinates(image, place, order=3), 0.0, 1.0)
        assert np.allclose(clip[0], expected, atol=1e-12)


def test_an_eye_that_rests_sees_one_frame():
    clips = stimuli.natural_sequences(
        (8, 8), n=4, n_frames=6, images="chelsea", diffusion=0.0, saccade_rate=0.0
    )
    assert (clips == clips.isel(time=0)).all()
    assert (clips.n_saccades == 0).all()


def test_sequences_are_the_same_however_many_are_drawn():
    asked = {"n_frames": 4, "seed": 9, "images": ["camera", "grass"]}
    few = stimuli.natural_sequences((8, 8), n=2, **asked)
    many = stimuli.natural_sequences((8, 8), n=5, **asked)
    assert few.identical(many.isel(trial=slice(2)))
    assert few.start_row.dtype.kind == "f"
    assert few.n_saccades.dtype.kind == "i"


def test_log_sequences_are_not_clipped():
    clips = stimuli.natural_sequences((8, 8), n=20, n_frames=2, preprocessing="log")
    assert clips.min() < -0.5
    assert clips.max() > 1.0


class FakeVideo:
    """Stands in for the package av: a video whose pixel codes are given."""

    error = SimpleNamespace(FFmpegError=OSError)

    def __init__(self, codes: np.ndarray, rate: float) -> None:
        self.codes, self.rate = codes, rate

    def open(self, path: str) -> FakeVideo:
        return self

    def __enter__(self) -> FakeVideo:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def streams(self) -> SimpleNamespace:
        return SimpleNamespace(video=[SimpleNamespace(average_rate=self.rate)])

    def decode(self, video: int):
        for image in self.codes:
            yield SimpleNamespace(to_ndarray=lambda format, image=image: image)


@pytest.fixture
def codes(rng):
    grey = rng.integers(0, 256, (12, 40, 48), dtype=np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def test_video_clips_are_the_crops_that_they_say(codes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", FakeVideo(codes, 25.0))
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    clips = check_stimulus(stimuli.video_sequences((10, 12), path, n=7, n_frames=5, seed=2))
    assert float(clips.frame_duration) == pytest.approx(0.04)
    coded = codes[..., 0] / 255.0
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    thinned = linear[:, ::8, ::8]
    for clip in clips:
        start, row, column = (int(clip[k]) for k in ("start_frame", "crop_row", "crop_column"))
        cut = linear[start : start + 5, row : row + 10, column : column + 12]
        assert np.allclose(clip, stimuli.preprocess(cut, reference=thinned))


def test_a_short_video_is_refused(codes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", FakeVideo(codes, 25.0))
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"12 frames of 40 x 48 .* Ask for shorter or smaller"):
        stimuli.video_sequences((10, 12), path, n=1, n_frames=13)


def test_video_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pcsim\[video\]'"):
        stimuli.video_sequences((8, 8), path, n=1, n_frames=2)


def test_a_real_video_is_read(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "ramp.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
        for i in range(6):
            image = np.full((24, 32, 3), 20 * i + 40, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    clips = stimuli.video_sequences((8, 8), path, n=4, n_frames=6)
    assert clips.sizes == {"trial": 4, "time": 6, "y": 8, "x": 8}
    assert float(clips.frame_duration) == pytest.approx(0.05)
    assert (np.diff(clips.values[0, :, 0, 0]) > 0).all()
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match="Convert it with FFmpeg"):
        stimuli.video_sequences((8, 8), tmp_path / "broken.mp4", n=1, n_frames=1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"n": 0}, "natural_patches: found n 0"),
        ({"seed": -3}, "natural_patches: found seed -3"),
        ({"images": "camra"}, "Did you mean 'camera'"),
        ({"images": ["camera", "lena"]}, "photographs: found photograph 'lena', expected one of"),
        ({"images": []}, "photographs: found no names of images"),
        ({"images": "no/such/folder"}, "found folder or photograph 'no/such/folder'"),
        ({"images": {"a": np.zeros((20, 20))}}, "image 'a' of shape .* black or negative"),
        ({"images": {"a": np.full((20, 20), 0.4)}}, "preprocess: found an image of one grey"),
        ({"images": {"a": np.full((20, 20), np.nan)}}, "NaN or infinite"),
        ({"images": {"a": np.ones((4, 4))}}, "Shrink field_shape or leave that image out"),
        ({"preprocessing": "white"}, "natural_patches: found preprocessing 'white'"),
        ({"background": 0.0}, "natural_patches: found background 0"),
        ({"px_per_deg": -16.0}, "natural_patches: found px_per_deg -16"),
        ({"frame_duration": np.nan}, "frame_duration nan"),
    ],
)
def test_bad_patches_are_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        stimuli.natural_patches((16, 16), **{"n": 2, "images": "camera", **asked})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"n_frames": 0}, "natural_sequences: found n_frames 0"),
        ({"diffusion": -1.0}, "eye_movements: found diffusion -1"),
        ({"saccade_rate": np.inf}, "eye_movements: found saccade_rate inf"),
        ({"frame_duration": 0.0}, "natural_sequences: found frame_duration 0"),
        ({"images": {"a": np.ones((18, 30))}}, r"expected at least the field's \(20, 20\)"),
    ],
)
def test_bad_sequences_are_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        stimuli.natural_sequences((16, 16), **{"n": 1, "n_frames": 2, "images": "camera", **asked})


def test_empty_and_broken_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found no image in the folder .* Name another folder"):
        stimuli.photographs(tmp_path)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"'cut.png' that does not open .* Remove or mend it"):
        stimuli.photographs(tmp_path)
