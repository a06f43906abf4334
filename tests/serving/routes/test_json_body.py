"""JSON bodies: what is read, what is refused, and what it says."""

import base64
import json
from typing import Any

import pytest

from lensmith.serving.problems import ProblemError
from lensmith.serving.routes.instances import Instances
from lensmith.serving.routes.json_body import Strict, Whole, image_from_base64, json_limit, parse, schema_of
from lensmith.serving.routes.open_inference_schema import InferRequest
from lensmith.serving.upload import UploadLimits

PNG = b"\x89PNG\r\n\x1a\n"


class Numbers(Strict):
    some: list[Whole]


def test_integers_may_be_written_as_3_0_and_not_as_text_or_truth() -> None:
    assert parse(Numbers, b'{"some": [3, 3.0], "unknown": {}}', 100).some == [3, 3]
    for wrong in ("3.5", '"3"', "true", "null", "1e999", "NaN"):
        with pytest.raises(ProblemError) as caught:
            parse(Numbers, f'{{"some": [{wrong}]}}'.encode(), 100)
        assert caught.value.kind == "invalid-request"


def test_an_answer_names_a_few_mistakes_by_their_place_and_repeats_nothing_of_the_body() -> None:
    with pytest.raises(ProblemError) as caught:
        parse(Numbers, json.dumps({"some": ["secret"] * 5}).encode(), 100)
    detail = caught.value.detail
    assert detail.startswith("some.0: Input should be a valid integer; some.1: ")
    assert detail.endswith(" and 2 more.")
    assert "secret" not in detail


def test_an_image_of_the_largest_size_fits_into_the_limit_of_a_json_body() -> None:
    for size in (1, 2, 3, 10_000, 5_000_000):
        assert len(json.dumps({"instances": [{"b64": base64.b64encode(bytes(size)).decode()}]})) < json_limit(size)


@pytest.mark.parametrize("strange", ["\n", " ", "=", "A", "_", "ä", "\0"])
def test_base64_is_taken_as_its_standard_has_it(strange: str) -> None:
    good = base64.b64encode(PNG).decode()
    assert image_from_base64(good, UploadLimits(8)) == PNG
    with pytest.raises(ProblemError):
        image_from_base64(good + strange, UploadLimits(100))
    with pytest.raises(ProblemError) as caught:
        image_from_base64(good, UploadLimits(7))
    assert caught.value.kind == "too-large"


@pytest.mark.parametrize("model", [InferRequest, Instances])
def test_schemas_stand_for_themselves(model: Any) -> None:
    schema = schema_of(model)
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in json.dumps(schema)
