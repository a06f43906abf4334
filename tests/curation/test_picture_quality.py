"""Quality of pictures: too dark, flat, blurred or tiny ones are named, and a set that is like that is not."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fixtures.pictures import patches
from lensmith.curation.picture_quality import Measured, blur_of, measure_picture, quality_findings
from lensmith.data.image_set import Sample


def test_poor_pictures_are_named_with_their_kind() -> None:
    good = [patches(seed) for seed in range(20)]
    dark = Image.fromarray((np.asarray(patches(1)) // 24).astype(np.uint8))
    poor = [
        dark,
        patches(2).filter(ImageFilter.GaussianBlur(6)),
        Image.new("RGB", (64, 64), (120, 130, 140)),
        patches(3, 8),
    ]
    measured = [measure_picture(each, min(each.size)) for each in [*good, *poor]]
    samples = [Sample(f"{number:02d}.png", 0) for number in range(len(measured))]
    found = {finding.path: finding.kind for finding in quality_findings(samples, measured)}
    assert found == {"20.png": "dark", "21.png": "blurred", "22.png": "flat", "23.png": "tiny"}
    assert quality_findings(samples[:20], measured[:20]) == []
    assert quality_findings(samples[:1], [None]) == []


def test_a_set_of_dark_pictures_is_not_full_of_findings() -> None:
    measured = [Measured(28, 40.0 + number % 7, 20.0, 0.3) for number in range(50)]
    assert quality_findings([Sample(f"{number}.png", 0) for number in range(50)], measured) == []


def test_blur_does_not_depend_on_contrast() -> None:
    luma = np.asarray(patches().convert("L"), dtype=np.float64)
    assert blur_of(luma) == pytest.approx(blur_of(luma / 10 + 100))
    soft = np.asarray(patches().filter(ImageFilter.GaussianBlur(3)).convert("L"), dtype=np.float64)
    assert blur_of(soft) > blur_of(luma) + 0.3
