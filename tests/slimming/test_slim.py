"""The small network gives what the masked one gives, and has the sizes that the zeros of the masks ask for."""

import copy
import sys

import pytest
import timm
import torch
from slim_networks import shaken
from torch import nn

import pxframe
from pxframe.running.outputs import TOLERANCE
from pxframe.slimming.constant import constants


class Plain(nn.Module):
    """Three convolutions; the second reads with or without padding."""

    def __init__(self, padding, activation=nn.ReLU):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = activation()
        self.b = nn.Conv2d(6, 5, 3, padding=padding, bias=False)
        self.c = nn.Conv2d(5, 4, 1)

    def forward(self, x):
        return self.c(self.b(self.act(self.norm(self.a(x)))))


def masks_of(model, **rows):
    """Masks of all weights, true but for the given rows."""
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1}
    for name, gone in rows.items():
        masks[name.replace("__", ".") + ".weight"][gone] = False
    return pxframe.Ticket(masks)


def equal(model, ticket, found, x):
    """The largest difference of outputs from those of the model with its masks, relative to the largest output."""
    masked = copy.deepcopy(model)
    ticket.apply(masked)
    with torch.no_grad():
        expected, got = masked(x), found.model(x)
    return float((expected - got).abs().max() / expected.abs().max())


def test_channels_go_and_their_shifts_go_into_a_bias():
    model = shaken(Plain(padding=0))
    ticket, x = masks_of(model, a=[1, 4]), torch.randn(2, 3, 8, 8)
    found = pxframe.slim(model, ticket, x)
    assert found.channels == {"a": (6, 4)}
    assert found.model.a.weight.shape == (4, 3, 3, 3)
    assert found.model.b.weight.shape == (5, 4, 3, 3)
    assert found.model.b.bias is not None
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


def test_in_front_of_a_padded_convolution_the_shifts_are_carried_by_one_channel():
    """A bias would be wrong at the border. Of three channels that are always above zero one stays, for all of them."""
    model = shaken(Plain(padding=1))
    with torch.no_grad():
        model.norm.bias[[0, 2, 5]] = 3.0
        model.norm.bias[3] = -3.0  # closed: nothing comes through
    ticket = masks_of(model, a=[0, 2, 3, 5])
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {"a": (6, 3)}
    assert found.model.b.bias is None
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


def test_what_nobody_reads_goes():
    model = shaken(Plain(padding=1))
    masks = masks_of(model).masks
    masks["b.weight"][:, [0, 3]] = False
    ticket = pxframe.Ticket(masks)
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {"a": (6, 4)}
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


def test_one_removal_leads_to_the_next():
    """Output 2 of b reads channel 1 of a alone. When that goes, output 2 is constant, and goes too."""
    model = shaken(Plain(padding=0))
    masks = masks_of(model, a=[1]).masks
    masks["b.weight"][2] = False
    masks["b.weight"][2, 1] = True
    ticket = pxframe.Ticket(masks)
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {"a": (6, 5), "b": (5, 4)}
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.Threshold(0.1, 0.0)])
def test_a_channel_that_only_looks_closed_stays(activation):
    """No image of the usual size opens it, and a larger one does."""
    model = shaken(Plain(padding=1, activation=activation))
    with torch.no_grad():
        model.norm.bias[2] = -50.0
    found = pxframe.slim(model, masks_of(model), torch.randn(2, 3, 8, 8))
    assert found.channels == {}
    assert equal(model, masks_of(model), found, 1000 * torch.randn(2, 3, 8, 8)) < 1e-6


def test_the_opened_network_is_open_at_every_depth():
    """On a single image every channel behind global pooling looks constant."""
    torch.manual_seed(0)
    model = shaken(timm.create_model("efficientnet_b0", num_classes=7))
    found = constants(model, ["conv_head", "classifier"], [torch.zeros(1, 3, 32, 32)])
    assert found["classifier"].isnan().all()
    assert found["conv_head"].isnan().all()


def test_a_channel_that_only_looks_closed_stays_where_the_model_normalises_its_inputs():
    class Normalising(Plain):
        def forward(self, x):
            return super().forward((x - 0.5) / 0.2)

    model = shaken(Normalising(padding=0))
    with torch.no_grad():
        model.norm.bias[2] = -50.0
    ticket = masks_of(model, a=[4])
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {"a": (6, 5)}
    assert equal(model, ticket, found, 1000 * torch.randn(2, 3, 8, 8)) < 1e-6


def test_the_model_is_as_it_was_and_the_small_one_in_its_modes():
    model = shaken(Plain(padding=0)).train()
    model.norm.eval()
    model.c.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    found = pxframe.slim(model, masks_of(model, a=[1]), torch.randn(2, 3, 8, 8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in found.model.children()] == [True, False, True, True, True]
    assert not found.model.c.weight.requires_grad
    assert found.model.a.weight.requires_grad


@pytest.mark.parametrize(
    ("gone", "name", "why"),
    [
        ([0, 1], "a", "its channels are picked or reshaped"),
        ([3, 4], "c", "without them the outputs would be others"),  # Torch-Pruning takes the picked ones for these
    ],
)
def test_channels_that_are_picked_by_number_stay_and_are_named(caplog, gone, name, why):
    class Picked(Plain):
        def forward(self, x):
            x = self.act(self.norm(self.a(x)))
            return self.c(self.b(x)) + x[:, 2:3, 1:-1, 1:-1]

    model = shaken(Picked(padding=0))
    with torch.no_grad():  # small outputs, whose differences are small as well
        model.norm.weight.mul_(1e-6)
        model.norm.bias.mul_(1e-6)
        model.c.bias.zero_()
    ticket = masks_of(model, a=gone)
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {}
    assert list(found.whole) == [name]
    assert f"{name} ({why}" in caplog.text
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


def test_a_network_of_two_layers_with_a_flatten_between():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    ).eval()
    ticket = masks_of(model, **{"0": [0, 5, 6]})
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {"0": (8, 5)}
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-5


def test_layer_norm_mixes_channels_so_they_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    ticket = pxframe.Ticket({"0.weight": torch.arange(6).view(6, 1).expand(6, 4) > 1})
    found = pxframe.slim(model, ticket, torch.randn(2, 4))
    assert found.channels == {}
    assert found.whole == {"0": "1 (LayerNorm) mixes its channels"}


@pytest.mark.parametrize("idle", ["values", "unused"])
def test_heads(idle):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    masks = masks_of(model).masks
    if idle == "values":  # rows 0-191 are queries, 192-383 keys, then values; a head has 64
        masks["blocks.0.attn.qkv.weight"][384 + 64 : 384 + 128] = False
    else:
        masks["blocks.0.attn.proj.weight"][:, 64:128] = False
    ticket = pxframe.Ticket(masks)
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 32, 32))
    assert found.model.blocks[0].attn.num_heads == 2
    assert found.channels["blocks.0.attn.qkv"] == (576, 384)
    assert equal(model, ticket, found, torch.randn(3, 3, 32, 32)) < 1e-5


def test_a_task_s_model_that_holds_the_backbone():
    backbone = shaken(Plain(padding=0))
    model = nn.Sequential(backbone, nn.Conv2d(4, 2, 1)).eval()
    found = pxframe.slim(model, masks_of(backbone, a=[1]), torch.randn(2, 3, 8, 8))
    assert found.channels == {"0.a": (6, 5)}


def test_outputs_that_are_no_numbers_are_no_proof():
    model = shaken(Plain(padding=0))
    nn.init.constant_(model.c.bias, torch.nan)
    with pytest.raises(pxframe.PxframeError, match="the slim network's outputs differ from those of the masked one"):
        pxframe.slim(model, masks_of(model, a=[1]), torch.randn(2, 3, 8, 8))


def test_without_torch_pruning_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    model = Plain(padding=0)
    with pytest.raises(pxframe.PxframeError, match=r"^slimming needs Torch-Pruning: pip install pxframe\[slim\]$"):
        pxframe.slim(model, masks_of(model), torch.randn(2, 3, 8, 8))


SMALL = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_byobnet")
LARGE = ("resnet50", "vgg16_bn", "mobilenetv3_small_100", "efficientnet_b0", "convnext_atto", "mobilenetv2_100")


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_real_models(name):
    torch.manual_seed(0)
    model = shaken(timm.create_model(name, num_classes=7))
    x = torch.randn(2, 3, 64, 64) if name != "test_vit" else torch.randn(2, 3, 160, 160)
    head = model.get_classifier()
    (out,) = (n for n, m in model.named_modules() if m is head)
    ticket = pxframe.prune(model, [(x, None)], "random", 0.4, granularity="channel", exclude=f"{out}.*")
    found = pxframe.slim(model, ticket, x)
    assert len(found.channels) > 2
    assert equal(model, ticket, found, torch.randn_like(x)) < TOLERANCE
    sizes = [sum(p.numel() for p in network.parameters()) for network in (model, found.model)]
    assert sizes[1] < 0.9 * sizes[0]


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_transposed_convolutions_in_groups(groups):
    """The weight of one has its inputs first, and its second dimension counts the outputs of a group alone."""
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(6, 6, 2, stride=2, groups=groups, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), up, nn.Conv2d(6, 4, 1)).eval()
    nn.init.zeros_(model[0].bias)
    ticket = masks_of(model, **{"0": [1, 4]})
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {1: {"0": (6, 4)}, 3: {}, 6: {"0": (6, 4), "2": (6, 4)}}[groups]
    assert found.whole == ({"0": "2 is a convolution of 3 groups"} if groups == 3 else {})
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


class Named(Plain):
    """Layers that are given their inputs by name."""

    def forward(self, x):
        return self.c(input=self.b(input=self.act(self.norm(self.a(input=x)))))


class OneByOne(Plain):
    """Layers that are given images without a batch."""

    def forward(self, x):
        return torch.stack([self.c(self.b(self.act(self.a(image)))) for image in x])


@pytest.mark.parametrize("cls", [Named, OneByOne])
def test_layers_that_are_called_in_other_ways(cls):
    model = shaken(cls(padding=0))
    ticket = masks_of(model, a=[1, 4])
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 8, 8))
    assert found.channels == {"a": (6, 4)}
    assert equal(model, ticket, found, torch.randn(3, 3, 9, 7)) < 1e-6


def test_outputs_that_cannot_be_seen_are_no_proof():
    class Result:
        def __init__(self, values):
            self.values = values

    class Hidden(Plain):
        def forward(self, x):
            x = self.act(self.norm(self.a(x)))
            return Result(self.c(self.b(x)) + x[:, 1:2, 1:-1, 1:-1])

    model = shaken(Hidden(padding=0))
    with pytest.raises(pxframe.PxframeError, match=r"^no tensor is seen in the model's output, of type Result"):
        pxframe.slim(model, masks_of(model, a=[1]), torch.randn(2, 3, 8, 8))


def test_layers_that_share_their_weights_stay_and_are_named():
    """Each layer would get a weight of its own, and training would take them apart."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(*sizes) for sizes in ((5, 6), (5, 6), (6, 3)))
            self.b.weight = self.a.weight
            self.d, self.e = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.e(self.d(self.c(self.a(x).relu() + self.b(x).tanh())).relu())

    torch.manual_seed(0)
    model = Tied().eval()
    ticket, x = masks_of(model, a=[1, 4], d=[0]), torch.randn(2, 5)
    found = pxframe.slim(model, ticket, x)
    assert found.channels == {"d": (6, 5)}
    (reason,) = found.whole.values()
    assert reason.endswith("shares its weights with another layer")
    assert found.model.a.weight is found.model.b.weight
    assert equal(model, ticket, found, x) < 1e-6


def test_a_bias_that_a_frozen_layer_gets_is_frozen():
    model = shaken(Plain(padding=0))
    model.b.requires_grad_(False)
    found = pxframe.slim(model, masks_of(model, a=[1]), torch.randn(2, 3, 8, 8))
    assert found.model.b.bias is not None
    assert {n for n, p in found.model.named_parameters() if not p.requires_grad} == {"b.weight", "b.bias"}


def test_a_model_that_keeps_an_activation_can_be_slimmed():
    """torch copies no tensor that has a gradient history."""

    class Keeping(Plain):
        def forward(self, x):
            self.kept = self.a(x)
            return self.c(self.b(self.act(self.norm(self.kept))))

    model, x = shaken(Keeping(padding=0)), torch.randn(2, 3, 8, 8)
    model(x)
    kept = model.kept
    granularity = dict(type="channel", groups="sum")
    ticket = pxframe.prune(model, [(x, None)], "magnitude", params=0.6, granularity=granularity, exclude="c.*")
    found = pxframe.slim(model, ticket, x)
    assert set(found.channels) <= {"a", "b"}
    assert found.channels
    assert model.kept is kept
    assert pxframe.sparse_on_cpu(model, x).error < 1e-5


@pytest.mark.parametrize(("start", "gone"), [("norm", "0"), ("head", "3")])
def test_what_a_norm_or_a_head_that_starts_at_zero_will_need_stays(start, gone):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)),
    ).eval()
    zero = model[1 if start == "norm" else 7]
    nn.init.zeros_(zero.weight)
    found = pxframe.slim(model, masks_of(model), torch.randn(2, 3, 8, 8))
    assert found.channels == {}
    small = found.model.state_dict()
    assert all(torch.equal(value, small[name]) for name, value in model.state_dict().items())
    found = pxframe.slim(model, masks_of(model, **{gone: [1]}), torch.randn(2, 3, 8, 8))
    assert list(found.channels) == [gone]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_the_channels_that_float32_loses(dtype):
    model = shaken(Plain(padding=0))
    ticket, x = masks_of(model, a=[1, 4], b=[2]), torch.randn(2, 3, 8, 8)
    wide = pxframe.slim(model, ticket, x)
    half = model.to(dtype)
    found = pxframe.slim(half, ticket, x.to(dtype))
    assert found.channels == wide.channels != {}
    assert {tensor.dtype for tensor in found.model.state_dict().values() if tensor.is_floating_point()} == {dtype}
    assert {tensor.dtype for tensor in half.state_dict().values() if tensor.is_floating_point()} == {dtype}
    with torch.no_grad():
        assert torch.allclose(found.model(x.to(dtype)).float(), wide.model(x), rtol=0.1, atol=0.1)
