"""fastai: a Learner around timm's network, frozen up to the head, on the one-cycle schedule.

Settings, from the documents ("Computer vision intro", "Learner" and "Hyperparam schedule") and its book: Adam with
decoupled weight decay and `fit_one_cycle` as they come, a top rate of 3e-3 ("often a good learning rate for CNNs"),
`Resize(method="squish")`, flips, `CrossEntropyLossFlat`, its own number of workers. Frozen: `freeze()` with
`train_bn=False` and `BnFreeze`, since the task is to train the head alone; by default fastai would go on training
BatchNorm all through the backbone, and pay for it. Its mixed precision is for GPUs; there is none here. The Learner
wraps timm's network, not `vision_learner`'s, which has another and larger head.
"""

from __future__ import annotations

from typing import Any

from fastai.callback.schedule import fit_one_cycle  # noqa: F401  (adds the method to Learner)
from fastai.callback.training import BnFreeze
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    Flip,
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    accuracy,
    params,
    set_seed,
)
from PIL import Image
from torch import nn

from contestants.shared import network
from contestants.task import MEAN, STD, Clock, Task


class Report(Callback):
    """Reports epochs to the clock."""

    order = 70  # after the recorder, which works out the metrics

    def __init__(self, clock: Clock, images: int) -> None:
        self.clock, self.images = clock, images

    def before_train(self) -> None:
        """Training begins."""
        self.clock.begin()

    def after_train(self) -> None:
        """Training ends."""
        self.clock.end(self.images)

    def after_epoch(self) -> None:
        """Validation has ended; the last of the recorder's values are loss and accuracy of the validation part."""
        self.clock.epoch(float(self.recorder.values[-1][-1]))


def run(task: Task, clock: Clock) -> nn.Module:
    """Train as the task says."""
    set_seed(task.seed)
    dls = ImageDataLoaders.from_folder(
        task.data,
        train="train",
        valid="val",
        vocab=list(task.classes),
        item_tfms=Resize(task.image_size, method="squish", resamples=(Image.Resampling.BICUBIC, 0)),
        batch_tfms=[Flip(), Normalize.from_stats(MEAN, STD)],
        bs=task.batch_size,
        val_bs=task.batch_size,
        device=task.device,
    )
    model = network(task)
    head = model.get_classifier()

    def splitter(net: Any) -> list[Any]:
        """The backbone's parameters, and the head's."""
        of_head = {id(one) for one in head.parameters()}
        return [[one for one in params(net) if id(one) not in of_head], params(head)]

    learner = Learner(
        dls,
        model,
        loss_func=CrossEntropyLossFlat(),
        splitter=splitter,
        metrics=accuracy,
        train_bn=not task.frozen,
        path=task.out,
        cbs=[Report(clock, len(dls.train_ds)), *([BnFreeze()] if task.frozen else [])],
    )
    if task.frozen:
        learner.freeze()
    learner.fit_one_cycle(task.epochs, 3e-3)
    return model
