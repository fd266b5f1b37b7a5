"""Training without an optimizer: the head is computed from the frozen backbone's features of the training set."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner import BaseLoop

from pxframe.base import ranks
from pxframe.base.errors import PxframeError


class FitLoop(BaseLoop):
    """One pass over the training set, in evaluation mode and without gradients, then ``model.head.fit``.

    Hooks' ``before_train`` is called first, as in any training, so a ticket is applied before features are read. No
    checkpoint is written: a run that was killed starts over.
    """

    # mmengine and its hooks read these
    max_epochs = max_iters = epoch = iter = 0

    def run(self) -> Any:
        runner = self.runner
        runner.call_hook("before_train")
        model = runner.model.eval()
        features, labels = [], []
        with torch.no_grad():
            for batch in self.dataloader:
                batch = model.data_preprocessor(batch, False)
                features.append(model.backbone(batch["inputs"]).float().cpu())
                labels.append(batch["data_samples"].cpu())
            images = len(self.dataloader.dataset)
            seen, wanted = (ranks.collected(torch.cat(parts), images) for parts in (features, labels))
            if not seen.isfinite().all():
                raise PxframeError("the backbone's features of the training set are not all finite; no head fits them")
            model.head.fit(seen, wanted)
        runner.call_hook("after_train")
        return model
