"""Heads of a classifier: modules from pooled features ``[N, D]`` to logits ``[N, K]``, trained or fitted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, Registry
from torch import Tensor, nn
from torchvision.ops import MLP

import pxframe
from pxframe.base.errors import near
from pxframe.base.options import positive, share

HEADS = Registry("head", parent=MODELS, scope="pxframe")
HEADS.register_module(name="Linear", module=nn.Linear)


class Fitted(nn.Module):
    """Base of heads that are computed in one pass from the training set's features, without an optimizer."""

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Compute the head from the features ``[N, D]`` and class numbers ``[N]`` of all training images."""
        raise NotImplementedError


@HEADS.register_module(name="Ridge")
class Ridge(Fitted, nn.Linear):
    """Ridge regression to +1 for an image's class and -1 for the other classes.

    For every class k: min over w_k, b_k of sum_n s_n (w_k x_n + b_k - y_nk)^2 + alpha ||w_k||^2. scikit-learn solves
    it in float64.

    Args:
        in_features: D.
        out_features: K.
        alpha: above 0. Of a list, the value with the least leave-one-out error on the training set is used.
        balanced: True: s_n = N / (K' N_c), N_c being the number of images of x_n's class and K' the number of classes
            with images, so that each class weighs the same. False: s_n = 1.
    """

    def __init__(
        self, in_features: int, out_features: int, alpha: float | Sequence[float] = 1.0, balanced: bool = True
    ) -> None:
        super().__init__(in_features, out_features)
        self.requires_grad_(False)
        several = isinstance(alpha, (list, tuple))
        self.alpha = [float(positive("Ridge", "alpha", a)) for a in (alpha if several else [alpha])]
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
    """The k training images nearest in cosine vote for their classes, each with weight exp(cosine / temperature).

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4,
    where k is 200. A logit is the logarithm of the sum of a class's votes, and ``-inf`` where it has none.

    The features of the training set are the head's weights: 4 D bytes an image, in memory and in ``model.pth``. For
    ImageNet (1.28 million images) and a ResNet-50 (D = 2048) that is 10.5 GB.

    Args:
        in_features: D.
        num_classes: K.
        images: number of images in the training set.
        k: number of images that vote, from 1 to ``images``.
        temperature: above 0.
    """

    def __init__(self, in_features: int, num_classes: int, images: int, k: int = 20, temperature: float = 0.07) -> None:
        super().__init__()
        if not (type(k) is int and 1 <= k <= images):
            raise pxframe.PxframeError(
                f"KNN: 'k' must be a whole number from 1 to {images}, the number of training images; got {k!r}"
            )
        self.k, self.temperature = k, positive("KNN", "temperature", temperature)
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
    """Linear layers of the widths ``hidden`` and ``num_classes``, with ReLU and dropout between them."""
    if not (isinstance(hidden, (list, tuple)) and all(type(n) is int and n >= 1 for n in hidden)):
        raise pxframe.PxframeError(f"MLP: 'hidden' must be a list of whole numbers of at least 1, got {hidden!r}")
    share("MLP", "dropout", dropout)
    layers = list(MLP(in_features, [*hidden, num_classes], dropout=dropout))
    return nn.Sequential(*layers[:-1])  # torchvision would also put dropout behind the logits


def build_head(config: Mapping[str, Any], features: int, classes: int, images: int) -> nn.Module:
    """Build the module that ``config`` describes.

    Args:
        config: ``dict(type=NAME, **options)``.
        features: D, the value of ``in_features`` or ``in_channels`` where the config leaves it out.
        classes: K, the value of ``out_features`` or ``num_classes`` likewise.
        images: number of training images, the value of ``images`` likewise.
    """
    options = dict(config)
    kind = options.pop("type", None)
    cls = HEADS.get(kind) if isinstance(kind, str) else kind
    if not callable(cls):
        raise pxframe.PxframeError(
            f"'type' {kind!r} is no built-in head{near(str(kind), HEADS.module_dict)}; "
            f"nor is it a name in mmengine's MODELS or a dotted name"
        )
    takes = inspect.signature(cls).parameters
    filled = dict.fromkeys(("in_features", "in_channels"), features)
    filled |= dict.fromkeys(("out_features", "num_classes"), classes) | {"images": images}
    return cls(**{key: value for key, value in filled.items() if key in takes} | options)
