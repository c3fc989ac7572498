"""Photographs as luminance: those that come with scikit-image and scikit-learn, or a folder's."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, refusal, unknown_name

__all__ = ["PHOTOGRAPHS", "Photograph", "luminance_of", "photographs", "preprocess"]

Floats = NDArray[np.floating[Any]]
SUFFIXES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".bmp", ".tif", ".tiff")
REC709 = (0.2126, 0.7152, 0.0722)
MAX_CLIPPED = 0.01


@dataclass(frozen=True)
class Photograph:
    """Where a photograph lies, who made it and on what terms."""

    package: str
    path: str
    licence: str
    source: str


_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")


def _from(package: tuple[str, str], name: str, licence: str, source: str) -> Photograph:
    return Photograph(package[0], f"{package[1]}/{name}", licence, source)


PHOTOGRAPHS: Mapping[str, Photograph] = {
    "astronaut": _from(_SKIMAGE, "astronaut.png", "public domain", "NASA, flic.kr/p/r9qvLn"),
    "camera": _from(_SKIMAGE, "camera.png", "CC0", "Lav Varshney"),
    "chelsea": _from(_SKIMAGE, "chelsea.png", "CC0", "Stefan van der Walt"),
    "china": _from(_SKLEARN, "china.jpg", "CC BY 2.0", "danielbuechele, flickr 6061409035"),
    "coffee": _from(_SKIMAGE, "coffee.png", "CC0", "Rachel Michetti"),
    "flower": _from(_SKLEARN, "flower.jpg", "CC BY 2.0", "vultilion, flickr 6056698931"),
    "grass": _from(_SKIMAGE, "grass.png", "CC0", "linolafett, DeviantArt Grass-01"),
    "gravel": _from(_SKIMAGE, "gravel.png", "CC0", "CC0Textures Gravel04"),
    "motorcycle_left": _from(
        _SKIMAGE, "motorcycle_left.png", "not stated", "Middlebury stereo 2014, Scharstein et al."
    ),
    "rocket": _from(_SKIMAGE, "rocket.jpg", "public domain", "SpaceX, flickr 16511594820"),
}
"""The photographs that the two packages carry in their wheels. The right half of the stereo pair
is left out, because it shows the same scene again, and so are drawings, scans and micrographs."""


def photographs(images: Any = None) -> dict[str, Floats]:
    r"""Read photographs as relative luminance between 0 and 1.

    The files hold values coded for a display; each channel is decoded with the sRGB curve and
    luminance is :math:`0.2126 R + 0.7152 G + 0.0722 B` (Rec. 709). Grey files are decoded with the
    same curve. Files are read from the installed packages; nothing is downloaded.

    Parameters
    ----------
    images
        None for all of `PHOTOGRAPHS`; a name or names out of it; a folder of image files; or a
        mapping from names to arrays (rows, columns) of luminance above or equal to 0, passed on
        after a check.

    Returns
    -------
    photographs : dict of (rows, columns)
        In the order of the names.

    Raises
    ------
    ValueError
        If a name is unknown, a folder holds no images, or a file cannot be read.
    RuntimeError
        If the package that should carry a photograph does not.

    Examples
    --------
    >>> images = photographs(["camera", "china"])
    >>> {name: image.shape for name, image in images.items()}
    {'camera': (512, 512), 'china': (427, 640)}
    """
    if isinstance(images, Mapping):
        return {str(name): _given(str(name), image) for name, image in images.items()}
    if images is None:
        return {name: _packaged(name) for name in PHOTOGRAPHS}
    if isinstance(images, str | Path) and Path(images).is_dir():
        return _folder(Path(images))
    names = [str(images)] if isinstance(images, str | Path) else list(images)
    if not names:
        found = "no names of images"
        raise ValueError(refusal("photographs", found, "at least one", "Leave it out for all."))
    for name in names:
        if name not in PHOTOGRAPHS:
            what = "folder or photograph" if isinstance(images, str | Path) else "photograph"
            raise unknown_name("photographs", what, name, PHOTOGRAPHS)
    return {name: _packaged(name) for name in names}


def _given(name: str, image: Any) -> Floats:
    checked = check_array("photographs", f"image {name!r}", image, shape=("rows", "columns"))
    if checked.size == 0 or checked.min() < 0 or checked.max() == 0:
        found = f"image {name!r} of shape {checked.shape}, empty, black or negative"
        expected = "luminance of at least 0, not 0 everywhere"
        raise ValueError(refusal("photographs", found, expected, "Give linear luminance."))
    return checked


def _packaged(name: str) -> Floats:
    photograph = PHOTOGRAPHS[name]
    # Looking the package up does not import it.
    spec = importlib.util.find_spec(photograph.package)
    roots = list(spec.submodule_search_locations or []) if spec is not None else []
    for root in roots:
        path = Path(root) / photograph.path
        if path.is_file():
            return _read(path)
    found = f"no {photograph.path} in the package {photograph.package!r}"
    advice = "Reinstall scikit-image and scikit-learn, or pass a folder of images."
    raise RuntimeError(refusal("photographs", found, f"the photograph {name!r}", advice))


def _folder(folder: Path) -> dict[str, Floats]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        found = f"no image in the folder {str(folder)!r}"
        expected = "files ending in " + ", ".join(SUFFIXES)
        raise ValueError(refusal("photographs", found, expected, "Name another folder."))
    return {path.name: _read(path) for path in paths}


def _read(path: Path) -> Floats:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                coded = np.asarray(image, dtype=np.float64) / 65535.0
            else:
                grey = image.mode in ("1", "L", "LA")
                coded = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float64) / 255.0
    except (OSError, SyntaxError, ValueError) as error:
        found, advice = f"a file {path.name!r} that does not open ({error})", "Remove or mend it."
        raise ValueError(refusal("photographs", found, "an image", advice)) from None
    return _given(path.name, luminance_of(np.clip(coded, 0.0, 1.0)))


def luminance_of(coded: Floats) -> Floats:
    """Return the luminance of pixels coded by sRGB, grey (y, x) or colour (y, x, 3), from 0 to 1.

    Examples
    --------
    >>> luminance_of(np.array([[0.0, 0.5, 1.0]])).round(3)
    array([[0.   , 0.214, 1.   ]])
    """
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array(REC709) if coded.ndim == 3 else linear)


def preprocess(
    luminance: Floats,
    *,
    kind: str = "luminance",
    background: float = 0.5,
    reference: Floats | None = None,
) -> Floats:
    r"""Bring a photograph into the range of a stimulus.

    "luminance": :math:`L_0 + g (L - \bar L)`, a change of mean and contrast that keeps luminance
    linear. The gain is :math:`L_0 / \bar L`, which keeps every contrast as it was in the scene,
    unless more than 1 % of the pixels would pass 1; then it is lowered until 1 % do, as light
    scattered in the eye would, and those are clipped to 1.

    "log": :math:`\ln(L + 0.01 \bar L)` less its mean and divided by its standard deviation over
    the photograph, so in units of that standard deviation and independent of the exposure. The
    added hundredth keeps black pixels finite.

    Parameters
    ----------
    luminance : (rows, columns)
    kind
        "luminance" or "log".
    background
        The mean :math:`L_0` of "luminance".
    reference
        Luminance whose mean and spread count, such as a whole video; by default the photograph.

    Returns
    -------
    image : (rows, columns)

    Raises
    ------
    ValueError
        If all pixels are equal.

    Examples
    --------
    >>> image = preprocess(np.array([[0.1, 0.2], [0.3, 0.2]]))
    >>> image.round(3)
    array([[0.25, 0.5 ], [0.75, 0.5 ]])
    """
    check_choice("preprocess", "preprocessing", kind, ("luminance", "log"))
    reference = luminance if reference is None else reference
    mean = reference.mean()
    if np.ptp(reference) <= 1e-9 * mean:
        found, advice = "an image of one grey", "Remove it."
        raise ValueError(refusal("preprocess", found, "an image with contrast", advice))
    if kind == "log":
        logs = np.log(reference + 0.01 * mean)
        return np.asarray((np.log(luminance + 0.01 * mean) - logs.mean()) / logs.std())
    bright = np.quantile(reference, 1.0 - MAX_CLIPPED)
    room = (1.0 - background) / (bright - mean) if bright > mean else np.inf
    gain = min(background / mean, room)
    return np.asarray(np.clip(background + gain * (luminance - mean), 0.0, 1.0))
