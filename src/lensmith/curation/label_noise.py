"""A model of label noise: how likely it is that a label is wrong, from the logits of a head that has not seen it.

Calibrated, the head's probabilities p of the true class explain a label with probability (1 − ε) p(label) + ε / C: a
share ε of the labels was drawn at random. Temperature and ε are those under which the labels are likeliest. So classes
that resemble each other raise no alarm, as their probabilities are high, and a clean set has hardly any suspects.

Sources: Natarajan et al., Learning with Noisy Labels, 2013, for the mixture; Guo et al., On Calibration of Modern
Neural Networks, 2017, for the temperature; Northcutt et al., Confident Learning, 2021, for ranking out-of-fold.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MOST_NOISE = 0.5
_LEAST_NOISE = 1e-4


@dataclass(frozen=True)
class LabelNoise:
    """A fitted noise model.

    Attributes:
        temperature: divisor of the logits.
        rate: ε, the share of labels drawn at random, 0..0.5; of these, one in C is correct by chance.
        loss: mean negative log-likelihood of the labels.
    """

    temperature: float
    rate: float
    loss: float

    def probabilities(self, logits: Floats32) -> Floats32:
        """Calibrated probabilities of the true class, float32 (N, C), of logits float32 (N, C)."""
        return _softmax(logits / np.float32(self.temperature))

    def wrong(self, own: Floats, classes: int) -> Floats:
        """Probability, float64 (N,), that a label is wrong, from its own probability, float64 (N,)."""
        chance = self.rate / classes
        return np.asarray(chance * (1 - own) / np.maximum((1 - self.rate) * own + chance, 1e-300))


def fit_noise(logits: Floats32, labels: Ints) -> LabelNoise:
    """Fit temperature and noise rate by maximum likelihood.

    Args:
        logits: float32 (N, C), out of fold; N ≥ 1.
        labels: int64 (N,), the labels as they are.
    """
    rows, classes = np.arange(len(labels)), logits.shape[1]

    def unpacked(point: Floats) -> tuple[float, float]:
        """Temperature and noise rate of a point, float64 (2,)."""
        return float(np.exp(np.clip(point[0], -5, 8))), float(MOST_NOISE / (1 + np.exp(-np.clip(point[1], -20, 20))))

    def loss(point: Floats) -> float:
        """Mean negative log-likelihood of the labels at a point, float64 (2,)."""
        temperature, rate = unpacked(point)
        own = _softmax(logits / np.float32(temperature))[rows, labels].astype(np.float64)
        rate = max(rate, _LEAST_NOISE)
        return float(-np.log((1 - rate) * own + rate / classes).mean())

    best = minimize(loss, np.array([np.log(3.0), -2.0]), method="Nelder-Mead", options={"xatol": 1e-2, "fatol": 1e-5})
    temperature, rate = unpacked(best.x)
    return LabelNoise(temperature, max(rate, _LEAST_NOISE), float(best.fun))


def _softmax(logits: Floats32) -> Floats32:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats32 = powers / powers.sum(axis=1, keepdims=True)
    return found
