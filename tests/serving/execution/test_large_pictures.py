"""Large pictures: admission knows what decoding one takes before it is decoded, and small ones do not pay for it."""

import asyncio
import time
from typing import Any

import pytest

from fixtures.pictures import encoded, photo
from fixtures.serving import ModelOf, zeros
from lensmith.imaging.decode_cost import DecodeCost, decode_cost
from lensmith.serving.execution.admission import AdmissionControl
from lensmith.serving.execution.decode_times import DecodeTimes
from lensmith.serving.execution.dynamic_batcher import DynamicBatcher
from lensmith.serving.execution.job import ExpiredError, Job
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import Pool, ThreadPool
from lensmith.serving.problems import ProblemError

pytestmark = pytest.mark.anyio

LARGE = DecodeCost("jpeg", 12.0, 0.042)
SMALL_S, LARGE_S = 0.004, 0.05
MAX_PIXELS = 50_000_000


@pytest.fixture(scope="module")
def large() -> bytes:
    return encoded(photo().resize((4000, 3000)), "JPEG", quality=90)


# Costs, from the header alone


def test_a_small_photo_costs_nothing_beyond_what_any_image_does(red_png: bytes) -> None:
    assert decode_cost(red_png, MAX_PIXELS) is None
    assert decode_cost(encoded(photo().resize((500, 375)), "JPEG"), MAX_PIXELS) is None
    for no_image in (b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\xff\xff" * 99, b"\x89PNG\r\n\x1a\n", b"II*\0", b"%!PS"):
        assert decode_cost(no_image, MAX_PIXELS) is None


def test_costs_grow_with_pixels_and_bytes_and_depend_on_the_format(large: bytes) -> None:
    found = decode_cost(large, MAX_PIXELS)
    assert found is not None
    assert (found.kind, found.megapixels) == ("jpeg", 12.0)
    assert found.reference_s == pytest.approx(0.006 + 0.009 * len(large) / 1e6)
    picture = photo().resize((2000, 1500))
    costs = {}
    for name, options in {"JPEG": {}, "progressive": {"progressive": True}, "PNG": {}, "WEBP": {"method": 0}}.items():
        stored = encoded(picture, "JPEG" if name == "progressive" else name, **options)
        costs[name] = decode_cost(stored, MAX_PIXELS)
    seconds = {name: cost.reference_s if cost else 0.0 for name, cost in costs.items()}
    assert seconds["JPEG"] < seconds["progressive"] < seconds["WEBP"] < seconds["PNG"]


def test_a_video_behind_a_photo_costs_no_decoding_and_neither_does_what_is_refused(large: bytes) -> None:
    photos = decode_cost(large, MAX_PIXELS), decode_cost(large + bytes(40_000_000), MAX_PIXELS)
    assert photos[0] is not None
    assert photos[1] is not None
    assert photos[1].reference_s < 0.1
    assert decode_cost(large, 11_000_000) is None  # 422, whatever the load


def test_times_are_learnt_by_kind_and_one_stall_says_little() -> None:
    times = DecodeTimes()
    assert times.predicted_s(None) == 0.0
    assert times.predicted_s(LARGE) == pytest.approx(0.042)
    for _ in range(30):
        times.note(LARGE, 0.084)
    assert times.predicted_s(LARGE) == pytest.approx(0.084, rel=0.01)
    assert times.predicted_s(LARGE._replace(kind="png")) == pytest.approx(0.042)
    times.note(LARGE, 1000.0)
    assert times.predicted_s(LARGE) < 0.16


# Predictions


@pytest.mark.parametrize("pool_class", [ThreadPool, DynamicBatcher])
def test_an_idle_pool_predicts_the_decoding_of_the_picture_itself(pool_class: Any) -> None:
    pool = pool_class(2, max_batch=1)
    pool.set_estimate(0.01)
    assert pool.predicted_s(cost=LARGE) - pool.predicted_s() == pytest.approx(0.042)


async def test_pictures_before_it_count_with_what_is_left_of_them(model_of: ModelOf, red_png: bytes) -> None:
    pool, model = ThreadPool(2), _slow(model_of)
    pool.set_estimate(0.001)
    answers = [pool.submit(Job(model, red_png, 1, cost=LARGE)) for _ in range(4)]
    before = pool.predicted_s()
    assert 0.02 < before < 0.07  # three of four, on two threads
    await asyncio.sleep(0.03)
    assert pool.predicted_s() < before - 0.01
    answers[3].cancel()
    await asyncio.gather(*answers[:3])
    await asyncio.sleep(0.01)
    assert pool.predicted_s() < 0.01
    assert pool._pending_extra_s() == 0.0


def _slow(model_of: ModelOf) -> LoadedModel:
    """A model for which a picture with a large cost takes LARGE_S to decode, without taking a core."""
    model = model_of(zeros)
    prepare = model.prepare
    small = 100_000

    def sleeping(image: bytes) -> Any:
        time.sleep(SMALL_S if len(image) < small else LARGE_S)
        return prepare(image[:-small] if len(image) > small else image)

    model.prepare = sleeping  # type: ignore[method-assign]
    return model


async def _closed_loop(pool: Pool, model: LoadedModel, images: list[bytes], requests: int) -> list[list[float | str]]:
    """What becomes of the requests of clients, each with its image: seconds, or the kind of the problem."""
    admission = AdmissionControl(0.18)
    admission.use(pool)

    async def client(image: bytes) -> list[float | str]:
        found: list[float | str] = []
        cost = LARGE if len(image) > 100_000 else None
        for _ in range(requests):
            started = time.perf_counter()
            try:
                delay_s = await admission.admit({}, cost)
                await pool.submit(Job(model, image, 1, started + admission.deadline_s - delay_s, cost))
            except (ProblemError, ExpiredError) as error:
                found.append(type(error).__name__)
            else:
                found.append(time.perf_counter() - started)
        return found

    return await asyncio.gather(*map(client, images))


async def test_four_clients_with_photos_of_12_megapixels_are_all_answered_on_two_threads(
    model_of: ModelOf, red_png: bytes
) -> None:
    pool = ThreadPool(2, max_batch=8)
    pool.set_estimate(SMALL_S)  # as small images taught it
    photo_bytes = red_png + bytes(100_000)
    found = await _closed_loop(pool, _slow(model_of), 4 * [photo_bytes], 6)
    assert [each for client in found for each in client if isinstance(each, str)] == []


def _of_one_picture(seconds: float, adapts: bool) -> tuple[AdmissionControl, DecodeCost]:
    cost = DecodeCost("progressive jpeg", 12.0, seconds)
    pool = ThreadPool(2)
    pool.set_estimate(0.01)
    admission = AdmissionControl(0.18, adapts)
    admission.use(pool)
    pool.running, pool.waiting, pool._extra_waiting_s = 2, 1, 3 * seconds  # those of three other clients
    return admission, cost


@pytest.mark.parametrize(("seconds", "deadline_s"), [(0.02, 0.18), (0.13, 0.42), (0.29, 0.9)])
def test_a_default_deadline_lets_four_clients_send_large_pictures_of_any_kind(
    seconds: float, deadline_s: float
) -> None:
    admission, cost = _of_one_picture(seconds, adapts=True)
    assert admission.deadline_of(cost) == pytest.approx(deadline_s)
    assert admission.admits(cost=cost)
    assert admission.admits(body_read=False)
    assert admission.admits() is (seconds < 0.2)  # a small one behind them would be too late
    admission.pool.waiting, admission.pool._extra_waiting_s = 18, 20 * seconds
    assert not admission.admits(cost=cost)


def test_a_stated_deadline_is_that_of_large_pictures_too() -> None:
    admission, cost = _of_one_picture(0.29, adapts=False)
    assert admission.deadline_of(cost) == 0.18
    assert not admission.admits(cost=cost)
    assert not admission.admits(body_read=False)


async def test_small_images_are_answered_beside_large_ones_and_after_them(model_of: ModelOf, red_png: bytes) -> None:
    pool = ThreadPool(2, max_batch=8)
    pool.set_estimate(SMALL_S)
    await _closed_loop(pool, _slow(model_of), 2 * [red_png + bytes(100_000)], 8)
    assert pool.image_s < 2 * SMALL_S  # large ones have not changed what a small one takes
    found = await _closed_loop(pool, _slow(model_of), 12 * [red_png], 10)
    assert [each for client in found for each in client if isinstance(each, str)] == []


async def test_what_cannot_be_answered_in_time_is_refused_and_says_how_large_the_picture_is() -> None:
    pool = ThreadPool(2)
    pool.set_estimate(0.01)
    admission = AdmissionControl(0.18)
    admission.use(pool)
    pool.running, pool.waiting, pool._extra_waiting_s = 2, 4, 0.4
    assert not admission.admits(0.0, LARGE)
    with pytest.raises(ProblemError, match=r"12\.0 megapixels: scaled down") as refused:
        await admission.admit({"delay_s": 0.01}, LARGE)
    assert refused.value.kind == "overloaded"
