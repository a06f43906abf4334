"""lensmith's MicroBatcher in a Lightning module: gradient accumulation in as many chunks as memory asks for.

Lightning leaves the step to the module (`automatic_optimization = False`), and the module to MicroBatcher.

    python examples/lightning_module.py
"""

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lensmith.training import MicroBatcher


class Classifier(L.LightningModule):
    """A classifier that cannot run out of memory.

    Args:
        model: network, float (N, …) → logits (N, C).
        lr: learning rate.
    """

    def __init__(self, model: nn.Module, lr: float = 1e-2) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.lr = model, lr
        self.micro = MicroBatcher(model)

    def training_step(self, batch: list[Tensor], number: int) -> None:
        """Forward, backward and optimizer step on a whole batch."""
        optimizer = self.optimizers()
        result = self.micro.backward(batch, self.loss)
        optimizer.step()
        optimizer.zero_grad()
        self.log_dict({"loss": result.loss.float(), "chunks": float(result.chunks)}, prog_bar=True)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The SUM of a chunk's losses."""
        return F.cross_entropy(self.model(inputs), labels, reduction="sum")

    def predict_step(self, batch: list[Tensor], number: int) -> Tensor:
        """Predicted classes int64 (N,), with the same out-of-memory retry."""
        return self.micro.infer(batch[0]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimizer of any kind."""
        return torch.optim.AdamW(self.model.parameters(), lr=self.lr)


def fit(steps: int = 40) -> float:
    """Learn in which quadrant a point lies; returns the share of points classified correctly."""
    torch.manual_seed(0)
    points = torch.randn(512, 2)
    quadrants = (points[:, 0] > 0).long() * 2 + (points[:, 1] > 0).long()
    module = Classifier(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 4)))
    loader = DataLoader(TensorDataset(points, quadrants), batch_size=128, shuffle=True)
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    answers = trainer.predict(module, DataLoader(TensorDataset(points), batch_size=256))
    return float((torch.cat(answers) == quadrants).float().mean())


if __name__ == "__main__":
    print(f"{fit():.1%} of the points classified correctly")
