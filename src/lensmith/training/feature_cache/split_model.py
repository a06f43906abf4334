"""Split point of a network, between frozen trunk and trainable tail: tail(trunk(x)) equals the network, to the bit.

timm's networks pass one tensor from module to module, so a part is left out by replacing its modules with ones that
return their input. Where a network is built otherwise the two parts give another result, and there is no split point.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.training.microbatch import memory
from lensmith.training.models.backbone import Network, evaluating

METHODS = ("_pos_embed", "pool")
"""Steps that timm's transformers take in methods instead of modules."""


class PassThrough(nn.Module):
    """A module that returns its first input, whatever else it is given."""

    def forward(self, x: Any, *_: Any, **__: Any) -> Any:
        """Return `x`."""
        return x


@dataclass(frozen=True)
class SplitPoint:
    """A boundary between two modules of a network.

    Attributes:
        at: name of the first module of the trainable tail.
        before: names of the trunk's modules, and of methods; empty where the tail is the head alone.
        after: names of the tail's modules, and of methods.
        shape: shape of the features that cross the boundary, without the batch.
        dropout: probability of dropout before the head, used where the tail is the head alone.
    """

    at: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    shape: tuple[int, ...]
    dropout: float = 0.0

    def frozen_trunk(self, model: nn.Module) -> nn.Module:
        """The frozen trunk: float32 (N, 3, S, S) → (N, *shape); shares modules with the model, for evaluation mode."""
        return _without(model, self.after)

    def trainable_tail(self, model: nn.Module) -> nn.Module:
        """The trainable tail: float (N, *shape) → logits (N, C); shares parameters and buffers with the model."""
        if not self.before:  # the head alone, before which timm applies dropout
            return nn.Sequential(nn.Dropout(self.dropout), model.get_submodule(self.at))
        return _without(model, self.before)


def find_split_point(
    network: Network, trainable: int | None, image_size: int, dropout: float = 0.0
) -> SplitPoint | None:
    """The last split point before all trainable parameters.

    Args:
        network: the network; neither its modes nor its statistics change.
        trainable: number of the backbone's last stages that are trained; 0: the head alone, None: all.
        image_size: pixels a side.
        dropout: probability of dropout before the head.

    Returns:
        None where no module is frozen in front, or the network cannot be split there.
    """
    if trainable is None:
        return None
    learning = set().union(*network.stages[: trainable + 1])
    model = network.model
    first = next(model.parameters())
    with evaluating(model), torch.random.fork_rng(devices=[]), torch.inference_mode():
        images = torch.rand(2, 3, image_size, image_size).to(first.device)
        try:
            if trainable == 0:
                head = next(name for name, module in model.named_modules() if module is network.head)
                split_point: SplitPoint | None = SplitPoint(head, (), (head,), ())
            else:
                split_point = _before_stages(network, learning, _calls(model, images))
            if split_point is None:
                return None
            features = split_point.frozen_trunk(model)(images)
            whole = isinstance(features, Tensor) and len(features) == len(images)
            if not whole or not torch.equal(split_point.trainable_tail(model).eval()(features), model(images)):
                return None
        except Exception as error:  # networks raise anything at a tensor that they do not expect
            if memory.is_out_of_memory(error):
                raise
            return None
        return replace(split_point, shape=tuple(features.shape[1:]), dropout=dropout)


def _calls(model: nn.Module, images: Tensor) -> dict[str, int]:
    """When each module, and each of the model's METHODS, was first called, by name."""
    calls: dict[str, int] = {}

    def note(name: str) -> None:
        calls.setdefault(name, len(calls))

    # `note` returns None, as a hook's value would replace the module's input.
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


def _before_stages(network: Network, learning: set[str], calls: dict[str, int]) -> SplitPoint | None:
    """Split before the trainable module that is called first, or the largest trainable one around it."""
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
    """Names of what is called before `at`, and from it on: only the outermost modules of each side."""
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
    """A model whose modules and methods of these names return their input; it shares everything else."""
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
            copied(parent)._modules[child] = PassThrough()
    return copies[""]


def _shallow(module: nn.Module) -> nn.Module:
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made
