"""A third party's task, whole."""

from dataclasses import dataclass

import torch

import pxframe


@dataclass(kw_only=True, eq=False)
class Regression(pxframe.TrainedTask):
    name, metric, higher_is_better, unit = "regression", "MAE", False, "px"

    def loss(self, output, target):
        return torch.nn.functional.l1_loss(output.squeeze(1), target)

    def runner(self, backbone, provider, **run):
        from torchmetrics import MeanAbsoluteError  # takes seconds, which only a run of this task should

        head = torch.nn.Linear(provider.strip(backbone), 1)
        data = {split: self.dataset(split) for split in ("train", "test")}
        model = pxframe.ImageModel(backbone, head, self.loss, self.mean, self.std)
        metric = pxframe.TorchMetric(MeanAbsoluteError(), self.metric)
        return pxframe.make_runner(model, self, **data, metric=metric, head="head", **run)


@pxframe.hookimpl
def pxframe_register(register):
    register.task(Regression)
