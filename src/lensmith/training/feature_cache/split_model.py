"""Where a network is cut into a frozen prefix and a learning suffix: suffix(prefix(x)) is the network, to the bit.

timm's networks hand one tensor from module to module, so a part is left out by putting modules that hand on what they
get in its place. Where that is not true of a network the two parts answer differently, and there is no cut.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.training.microbatch import memory
from lensmith.training.models.backbone import Network

METHODS = ("_pos_embed", "pool")
"""Steps that timm's transformers take in methods, not in modules."""


class Pass(nn.Module):
    """Stands for a module and hands on what it gets."""

    def forward(self, x: Any, *_: Any, **__: Any) -> Any:
        """X."""
        return x


@dataclass(frozen=True)
class SplitPoint:
    """A place between two modules.

    Attributes:
        at: name of the first module after it.
        before: names of the modules before it, and of methods; none where the head alone comes after it.
        after: names of those after it.
        shape: of what crosses it, without the batch.
        dropout: before the head, where that alone comes after it.
    """

    at: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    shape: tuple[int, ...]
    dropout: float = 0.0

    def frozen_trunk(self, model: nn.Module) -> nn.Module:
        """Float32 (N, 3, S, S) → (N, *shape), to be used in evaluation mode; shares parameters, buffers and modules."""
        return _without(model, self.after)

    def trainable_tail(self, model: nn.Module) -> nn.Module:
        """(N, *shape) → logits (N, C); shares the model's parameters and buffers."""
        if not self.before:  # the head alone, before which timm drops out
            return nn.Sequential(nn.Dropout(self.dropout), model.get_submodule(self.at))
        return _without(model, self.before)


def find_split_point(
    network: Network, trainable: int | None, image_size: int, dropout: float = 0.0
) -> SplitPoint | None:
    """The last place before everything that learns.

    Args:
        network: in whatever mode; it is left as it is.
        trainable: stages of the backbone that learn; 0: the head alone, None: all.
        image_size: pixels a side.
        dropout: before the head.

    Returns:
        None where nothing is frozen in front, or the network does not come apart there.
    """
    if trainable is None:
        return None
    learning = set().union(*network.stages[: trainable + 1])
    model = network.model
    first = next(model.parameters())
    with _evaluating(model), torch.random.fork_rng(devices=[]), torch.inference_mode():
        images = torch.rand(2, 3, image_size, image_size).to(first.device)
        try:
            split_point = (
                _before_head(network) if trainable == 0 else _before_stages(network, learning, _calls(model, images))
            )
            if split_point is None:
                return None
            features = split_point.frozen_trunk(model)(images)
            whole = isinstance(features, Tensor) and len(features) == len(images)
            if not whole or not torch.equal(split_point.trainable_tail(model).eval()(features), model(images)):
                return None
        except Exception as error:  # whatever a network says to a tensor that it does not expect
            if memory.is_out_of_memory(error):
                raise
            return None
        return replace(split_point, shape=tuple(features.shape[1:]), dropout=dropout)


def _calls(model: nn.Module, images: Tensor) -> dict[str, int]:
    """Name of each module, and of METHODS of the model → when it was first called."""
    calls: dict[str, int] = {}

    def note(name: str) -> None:
        calls.setdefault(name, len(calls))

    # A hook's answer would take the place of what the module gets.
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: note(name)) for name, module in model.named_modules()
    ]
    methods = [name for name in METHODS if callable(getattr(model, name, None))]
    for name in methods:
        own = getattr(model, name)

        def noted(*args: Any, _own: Any = own, _name: str = name, **kwargs: Any) -> Any:
            note(_name)
            return _own(*args, **kwargs)

        object.__setattr__(model, name, noted)
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
        for name in methods:
            object.__delattr__(model, name)
    return calls


def _before_head(network: Network) -> SplitPoint:
    name = next(name for name, module in network.model.named_modules() if module is network.head)
    return SplitPoint(name, (), (name,), ())


def _before_stages(network: Network, learning: set[str], calls: dict[str, int]) -> SplitPoint | None:
    """Before the module called first of those that learn, and as much around it as learns, too."""
    model = network.model
    at = min({name.rpartition(".")[0] for name in learning}, key=lambda name: calls.get(name, len(calls)))
    while at:
        parent = at.rpartition(".")[0]
        below = {f"{parent}.{name}" if parent else name for name, _ in model.get_submodule(parent).named_parameters()}
        if not below <= learning:
            before, after = _sides(model, at, calls)
            return SplitPoint(at, before, after, ()) if before else None
        at = parent
    return None


def _sides(model: nn.Module, at: str, calls: dict[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is called before `at`, and from it on: only the outermost modules of each side."""
    chain = ["", *(at[:place] for place, letter in enumerate(at) if letter == ".")]
    beside = [
        f"{parent}.{child}" if parent else child
        for parent in chain
        for child, _ in model.get_submodule(parent).named_children()
    ]
    outermost = [name for name in (*beside, *METHODS) if name in calls and name not in chain]
    before = tuple(name for name in outermost if calls[name] < calls[at])
    return before, tuple(name for name in outermost if calls[name] >= calls[at])


def _without(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The model with some modules and methods handing on what they get; everything else is shared with it."""
    copies: dict[str, nn.Module] = {"": _shallow(model)}

    def copied(name: str) -> nn.Module:
        if name not in copies:
            parent, _, child = name.rpartition(".")
            copies[name] = copied(parent)._modules[child] = _shallow(model.get_submodule(name))
        return copies[name]

    for name in names:
        if name in METHODS:
            object.__setattr__(copies[""], name, lambda x, *_, **__: x)
        else:
            parent, _, child = name.rpartition(".")
            copied(parent)._modules[child] = Pass()
    return copies[""]


def _shallow(module: nn.Module) -> nn.Module:
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
