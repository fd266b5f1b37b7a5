"""Training without an optimizer: the head is computed from what the frozen backbone says of the training set."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner import BaseLoop

from pxframe.base.errors import PxframeError

CHECKPOINT = "fitted.pth"


class FitLoop(BaseLoop):
    """One pass over the training set, in evaluation mode and without gradients, then ``model.head.fit``.

    ``before_train`` comes first, as in any training, so a ticket is applied before features are read. The model is
    saved as ``fitted.pth`` in the runner's folder. There is no state in between: a run that was killed starts over.
    """

    # what mmengine and its hooks ask of a loop
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
            if not (seen := torch.cat(features)).isfinite().all():
                raise PxframeError("the backbone's features of the training set are not all finite; no head fits them")
            model.head.fit(seen, torch.cat(labels))
        runner.save_checkpoint(runner.work_dir, CHECKPOINT, save_optimizer=False, save_param_scheduler=False)
        runner.call_hook("after_train")
        return model
