"""A small residual network in float64, and how its channels go together."""

import torch
from torch import nn


class Residual(nn.Module):
    """``stem``, ``out`` and ``skip`` make one stream of four channels; the three of ``inner`` are alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.inner_norm = nn.Conv2d(4, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.out, self.out_norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.skip = nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = self.stem_norm(self.stem(x)).tanh()
        y = y + self.out_norm(self.out(self.inner_norm(self.inner(y)).tanh()))
        return self.head((y + self.skip(x)).tanh().mean((2, 3)))


#: By group and layer, the module whose outputs a mask entry on the layer's channels multiplies.
GATED = {
    "stem.weight": {"stem.weight": "stem_norm", "out.weight": "out_norm", "skip.weight": "skip"},
    "inner.weight": {"inner.weight": "inner_norm"},
}
TIES = {
    group: {layer: torch.arange(4 if group == "stem.weight" else 3) for layer in layers}
    for group, layers in GATED.items()
}


def residual():
    """The network, drawn from seed 0, its batch norms with statistics, scales and shifts."""
    torch.manual_seed(0)
    model = Residual()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.double()


def data(sizes=(4, 4)):
    torch.manual_seed(1)
    return [(torch.randn(n, 2, 5, 5, dtype=torch.float64), torch.arange(n) % 3) for n in sizes]
