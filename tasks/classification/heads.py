"""Heads of a classifier: modules from pooled features ``[N, D]`` to logits ``[N, K]``, trained or fitted."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, Registry
from torch import Tensor, nn
from torchvision.ops import MLP

import pxframe
from pxframe.base.errors import near

HEADS = Registry("head", parent=MODELS, scope="pxframe")
HEADS.register_module(name="Linear", module=nn.Linear)


class Fitted(nn.Module):
    """Base of heads that are computed from the training set's features, in one pass, and not by an optimizer."""

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Take what the head needs from features ``[N, D]`` and class numbers ``[N]`` of all training images."""
        raise NotImplementedError


@HEADS.register_module(name="Ridge")
class Ridge(Fitted, nn.Linear):
    """The linear map that comes closest to +1 for an image's class and to -1 for the others, its weights held small.

    min over w_k, b_k of sum_n s_n (w_k x_n + b_k - y_nk)^2 + alpha ||w_k||^2, by scikit-learn's solver, in float64.

    Args:
        in_features: D.
        out_features: K.
        alpha: > 0; from a list, the one with the least leave-one-out error on the training set is taken.
        balanced: s_n = N / (K' N_c), so that each of the K' classes with images weighs the same; else s_n = 1.
    """

    def __init__(
        self, in_features: int, out_features: int, alpha: float | Sequence[float] = 1.0, balanced: bool = True
    ) -> None:
        super().__init__(in_features, out_features)
        self.requires_grad_(False)
        several = isinstance(alpha, (list, tuple))
        self.alpha = [float(_positive("Ridge", "alpha", a)) for a in (alpha if several else [alpha])]
        if not self.alpha:
            raise pxframe.PxframeError("Ridge: 'alpha' is an empty list; give a number above 0, or some to choose from")
        self.balanced = balanced

    def fit(self, features: Tensor, labels: Tensor) -> None:
        from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV

        weights = "balanced" if self.balanced else None
        if len(self.alpha) > 1:
            solver = RidgeClassifierCV(self.alpha, class_weight=weights)
        else:
            solver = RidgeClassifier(self.alpha[0], class_weight=weights)
        if len(labels.unique()) < 2:
            raise pxframe.PxframeError("Ridge: all training images are of one class; there is nothing to tell apart")
        solver.fit(features.double().cpu().numpy(), labels.cpu().numpy())
        rows = torch.as_tensor(solver.coef_).view(-1, self.in_features).to(self.weight)
        biases = torch.as_tensor(solver.intercept_).to(self.bias)
        if len(rows) == 1:  # of two classes, scikit-learn solves for the second; the first is its opposite
            rows, biases = torch.cat([-rows, rows]), torch.cat([-biases, biases])
        found = torch.as_tensor(solver.classes_)
        self.weight.zero_()  # a class without images is -1 everywhere: no weights, and that bias
        self.bias.fill_(-1.0)
        self.weight[found], self.bias[found] = rows, biases


@HEADS.register_module(name="KNN")
class KNN(Fitted):
    """Votes of the k training images nearest in cosine, each of weight exp(cosine / temperature).

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4,
    where k is 200. A logit is the logarithm of the class's votes, ``-inf`` where it has none.

    Memory: the training set's features, in float32, in the model and in its checkpoint.

    Args:
        in_features: D.
        num_classes: K.
        images: in the training set.
        k: how many vote, 1 to ``images``.
        temperature: > 0.
    """

    def __init__(self, in_features: int, num_classes: int, images: int, k: int = 20, temperature: float = 0.07) -> None:
        super().__init__()
        if not (type(k) is int and 1 <= k <= images):
            raise pxframe.PxframeError(
                f"KNN: 'k' must be a whole number from 1 to {images}, the number of training images; got {k!r}"
            )
        self.k, self.temperature = k, _positive("KNN", "temperature", temperature)
        self.num_classes = num_classes
        self.register_buffer("features", torch.empty(images, in_features))
        self.register_buffer("labels", torch.zeros(images, dtype=torch.long))

    def fit(self, features: Tensor, labels: Tensor) -> None:
        self.features.copy_(F.normalize(features.float()))
        self.labels.copy_(labels)

    def forward(self, x: Tensor) -> Tensor:
        cosine, index = (F.normalize(x.float()) @ self.features.T).topk(self.k)
        votes = F.one_hot(self.labels[index], self.num_classes).to(cosine).log()  # 0 or -inf, [N, k, K]
        return (votes + (cosine / self.temperature)[..., None]).logsumexp(1)


@HEADS.register_module(name="MLP")
def mlp(in_features: int, num_classes: int, hidden: Sequence[int] = (512,), dropout: float = 0.0) -> nn.Module:
    """Linear layers with ReLU, and dropout of the share ``dropout``, between them; ``hidden`` are their widths."""
    if not (isinstance(hidden, (list, tuple)) and all(type(n) is int and n >= 1 for n in hidden)):
        raise pxframe.PxframeError(f"MLP: 'hidden' must be a list of whole numbers of at least 1, got {hidden!r}")
    if not (isinstance(dropout, (int, float)) and 0 <= dropout < 1):
        raise pxframe.PxframeError(f"MLP: 'dropout' must be in [0, 1), got {dropout!r}")
    layers = list(MLP(in_features, [*hidden, num_classes], dropout=dropout))
    return nn.Sequential(*layers[:-1])  # torchvision would drop logits as well


def build_head(config: Mapping[str, Any], features: int, classes: int, images: int) -> nn.Module:
    """The module that ``config`` describes.

    Args:
        config: ``dict(type=NAME, **options)``.
        features: D, for an ``in_features`` or ``in_channels`` it takes and is not given.
        classes: K, for ``out_features`` or ``num_classes``.
        images: in the training set, for ``images``.
    """
    options = dict(config)
    kind = options.pop("type", None)
    cls = HEADS.get(kind) if isinstance(kind, str) else kind
    if not callable(cls):
        raise pxframe.PxframeError(
            f"'type' {kind!r} is no head of ours{near(str(kind), HEADS.module_dict)}; "
            f"nor is it a name in mmengine's MODELS or a dotted name"
        )
    takes = inspect.signature(cls).parameters
    filled = dict.fromkeys(("in_features", "in_channels"), features)
    filled |= dict.fromkeys(("out_features", "num_classes"), classes) | {"images": images}
    return cls(**{key: value for key, value in filled.items() if key in takes} | options)


def _positive(where: str, option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise pxframe.PxframeError(f"{where}: {option!r} must be a number above 0, got {value!r}")
    return value
