"""Attention, squeeze-excite and layer norms: against the enumeration of all paths, and on models as people use them."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import CHECKS, make_case
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.scoring.paths import active_paths, open_paths
from pxframe.scoring.prunable import prunable
from pxframe.scoring.saliencies import contract
from pxframe_plugins.px.scorer import PX
from pxframe_plugins.synflow import SynFlow
from pxframe_plugins.synflow_l2 import SynFlowL2

# --- tiny models, and the same written out unit by unit -------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def gelu_gate(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def random_norms(model):
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.normal_(module.weight)


class Block(nn.Module):
    """A one-block transformer on tokens of two numbers.

    ``packed``: torch's own attention module, and a class token for the head instead of the mean.
    ``allowed``: rows of a boolean mask.
    """

    def __init__(self, dim, heads, tokens, *, packed=False, allowed=None, activation=F.gelu):
        super().__init__()
        self.heads, self.activation, self.packed = heads, activation, packed
        self.mask = None if allowed is None else torch.tensor(allowed, dtype=torch.bool)
        self.embed = nn.Linear(2, dim)
        self.class_bias = nn.Parameter(torch.randn(dim))
        self.position_bias = nn.Parameter(torch.randn((tokens + packed) * dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        if packed:
            self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        else:
            self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.fc1, self.fc2, self.head = nn.Linear(dim, 2), nn.Linear(2, dim), nn.Linear(dim, 2)
        random_norms(self)

    def attend(self, x):
        if self.packed:
            barred = None if self.mask is None else ~self.mask
            return self.attention(x, x, x, attn_mask=barred, need_weights=self.mask is not None)[0]
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v, self.mask).transpose(1, 2).flatten(2))

    def forward(self, x):
        x = self.embed(x)
        if self.packed:
            x = torch.cat([self.class_bias.expand(len(x), 1, -1), x], 1)
        x = x + self.position_bias.view(-1, x.shape[-1])
        x = x + self.attend(self.norm1(x))
        x = x + self.fc2(self.activation(self.fc1(self.norm2(x))))
        return self.head(x[:, 0] if self.packed else x.mean(1))


def transformer(dim, heads, tokens, gate=gelu_gate, **options):
    packed, everything = options.get("packed", False), [[1] * (tokens + 1)] * (tokens + 1)

    def build(net, w):
        def layer(x, name, out, row=0):
            leaf = f"{name}_" if name.endswith("in_proj") else f"{name}."
            return net.linear(x, f"{leaf}weight", out, w[f"{leaf}bias"][row : row + out], row)

        def norm(x, name):
            return net.normed(x, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

        x = [layer(net.inputs(2), "embed", dim) for _ in range(tokens)]
        if packed:
            x.insert(0, [net.add(bias=float(b)) for b in w["class_bias"]])
        positions = w["position_bias"].view(-1, dim)
        x = [net.plus_constants(token, position) for token, position in zip(x, positions, strict=True)]
        y = [norm(token, "norm1") for token in x]
        if packed:
            q, k, v = ([layer(token, "attention.in_proj", dim, row) for token in y] for row in (0, dim, 2 * dim))
        else:
            q, k, v = ([layer(token, name, dim) for token in y] for name in ("q", "k", "v"))
        y = net.attention(q, k, v, heads, options.get("allowed", everything))
        x = [net.plus(a, layer(b, "attention.out_proj" if packed else "out", dim)) for a, b in zip(x, y, strict=True)]
        y = [layer(net.gated(layer(norm(token, "norm2"), "fc1", 2), gate), "fc2", dim) for token in x]
        x = [net.plus(a, b) for a, b in zip(x, y, strict=True)]
        return layer(x[0] if packed else net.mean(x), "head", 2)

    return Block(dim, heads, tokens, **options), (tokens, 2), build


class SqueezeExcite(nn.Module):
    """Convolution, group norm, activation, the map times a factor per channel, pooling, head."""

    def __init__(self, activation, factor):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.reduce, self.expand, self.head = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), nn.Linear(16, 2)
        self.activation, self.factor = activation, factor
        random_norms(self)

    def forward(self, x):
        x = self.activation(self.norm(self.conv(x)))
        squeezed = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return self.head(F.avg_pool2d(x * self.factor(self.expand(squeezed)), 2).flatten(1))


def squeeze_excite(activation, factor, gate, factor_of):
    def build(net, w):
        x, shape = net.conv(net.inputs(16), (1, 4, 4), "conv.weight", 4, 3, pad=1, bias=w["conv.bias"])
        halves = []
        for group in (0, 1):
            gamma, beta = (w[f"norm.{n}"][2 * group : 2 * group + 2].repeat_interleave(16) for n in ("weight", "bias"))
            halves += net.normed(x[32 * group : 32 * group + 32], gamma, beta, 1e-5)
        x = net.gated(halves, gate)
        pooled = [net.mean([[unit] for unit in x[16 * c : 16 * c + 16]])[0] for c in range(4)]
        squeezed = net.relu(net.linear(pooled, "reduce.weight", 2, w["reduce.bias"]))
        excited = net.linear(squeezed, "expand.weight", 4, w["expand.bias"])
        factors = [net.factor([unit], lambda z: factor_of(z[0])) for unit in excited]
        x, _ = net.pool(net.times(x, [factors[i // 16] for i in range(64)]), shape, 2, "avg")
        return net.linear(x, "head.weight", 2, w["head.bias"])

    return SqueezeExcite(activation, factor), (1, 4, 4), build


class ResponseNorm(nn.Module):
    """ConvNeXt V2's: x + bias + gamma * x * |x_c| / (mean over channels of |x_c|), here over four tokens."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)
        self.gamma, self.bias = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        x = F.gelu(self.first(x))
        norms = x.norm(dim=1, keepdim=True)
        factors = norms / (norms.mean(-1, keepdim=True) + 1e-6)
        return self.last((torch.addcmul(x, self.gamma, x * factors) + self.bias).mean(1))


def response_norm():
    def norm(z):
        return math.sqrt(sum(v * v for v in z))

    def build(net, w):
        x = [net.linear(net.inputs(2), "first.weight", 3, w["first.bias"]) for _ in range(4)]
        x = [net.gated(token, gelu_gate) for token in x]
        everything = [unit for token in x for unit in token]
        factors = [
            net.factor(
                everything,
                lambda z, c=c: norm(z[c::3]) / (sum(norm(z[i::3]) for i in range(3)) / 3 + 1e-6),
                1 / (1 + 1e-6),
            )
            for c in range(3)
        ]
        x = [
            [
                net.add(
                    edges=[(unit, None, 1.0), (unit, None, float(w["gamma"][c]))],
                    factors=[-1, factors[c]],  # none on the direct edge
                    bias=float(w["bias"][c]),
                )
                for c, unit in enumerate(token)
            ]
            for token in x
        ]
        return net.linear(net.mean(x), "last.weight", 2, w["last.bias"])

    return ResponseNorm(), (4, 2), build


CASES = {
    "one_head": lambda: transformer(2, 1, 3),
    "two_heads": lambda: transformer(4, 2, 2),
    "class_token": lambda: transformer(4, 2, 1, packed=True),
    "causal": lambda: transformer(2, 1, 3, allowed=[[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    "packed_masked": lambda: transformer(2, 1, 2, packed=True, allowed=[[1, 0, 1], [0, 1, 1], [1, 1, 0]]),
    "quick_gelu": lambda: transformer(2, 1, 2, lambda z: sigmoid(1.702 * z), activation=quick_gelu),
    "sigmoid_factor": lambda: squeeze_excite(F.silu, torch.sigmoid, sigmoid, sigmoid),
    "hardsigmoid_factor": lambda: squeeze_excite(
        F.hardswish, F.hardsigmoid, *[lambda z: min(max(z + 3, 0), 6) / 6] * 2
    ),
    "response_norm": response_norm,
}


@pytest.fixture(params=[(case, masked) for case in CASES for masked in (False, True)], ids=str, scope="module")
def case(request):
    name, masked = request.param
    torch.manual_seed(len(name))
    return make_case(*CASES[name](), masked, samples=2)


@pytest.mark.parametrize("check", CHECKS)
def test_path_quantities_equal_the_enumeration(case, check):
    CHECKS[check](case)


# --- what follows from it -------------------------------------------------------------------------------------------

VARIANTS = ("paper", "joint", "calibrated")
some_scorers = pytest.mark.parametrize(
    "options",
    [*({"scorer": "px", "variant": v} for v in ("paper", "joint")), {"scorer": "synflow"}],
    ids=lambda o: o.get("variant", o["scorer"]),
)


def as_net(model):
    return Net(model, {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1})


@some_scorers
def test_what_only_forms_a_recorded_factor_scores_zero(options):
    """Two thirds of a packed projection are queries and keys; the rest are values, which paths run through."""
    options = {**options, "factors": "recorded"}
    torch.manual_seed(0)
    block = Block(6, 2, 3, packed=True).double()
    scores = pxframe.score(block, [(torch.randn(2, 3, 2).double(), None)], **options)["attention.in_proj_weight"]
    assert not scores[:12].any()
    assert (scores[12:] != 0).all()
    torch.manual_seed(0)
    model = SqueezeExcite(F.silu, torch.sigmoid).double()
    scores = pxframe.score(model, [(torch.randn(2, 1, 4, 4).double(), None)], **options)
    assert {name for name, s in scores.items() if not s.any()} == {"reduce.weight", "expand.weight"}


def by_hand(x, eps=1e-6):
    mean = x.mean(1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + eps)


def by_var_mean(x, eps=1e-6):
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + eps)


@pytest.mark.parametrize("written", [by_hand, by_var_mean, lambda x: F.group_norm(x, 1, eps=1e-6)])
@some_scorers
def test_a_norm_written_out_is_the_norm(options, written):
    """LayerNorm2d of a map with one position, however it is put; its open scale is 1, give or take eps."""

    class Normed(nn.Module):
        def __init__(self, norm):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.norm, self.last = nn.Conv2d(3, 5, 2), norm, nn.Conv2d(5, 4, 1)

        def forward(self, x):
            return self.last(self.norm(self.first(x)))

    def fused(x):
        return F.layer_norm(x.permute(0, 2, 3, 1), (5,), eps=1e-6).permute(0, 3, 1, 2)

    batches = [(torch.randn(3, 3, 2, 2).double(), None)]
    expected, found = (pxframe.score(Normed(norm).double(), batches, **options) for norm in (fused, written))
    for name, scores in expected.items():
        assert scores.any()
        assert torch.allclose(found[name], scores, rtol=1e-5, atol=0)


def test_open_paths_know_no_data():
    torch.manual_seed(0)
    net = as_net(Block(4, 2, 3))
    plain, broken = (
        float(contract(open_paths(net, x, 2)[0])) for x in (torch.ones(2, 3, 2), torch.full((2, 3, 2), math.nan))
    )
    assert plain > 0
    assert plain == broken


@pytest.mark.parametrize("norm", [lambda x: F.layer_norm(x, (8,), eps=1e-9), lambda x: F.normalize(x, dim=1)])
def test_factors_beyond_any_float_keep_their_logarithm(norm):
    """30 layers whose factors are about 1e4: with one path a unit, the count is the product of their squares."""
    factors = []

    class Watched(nn.Module):
        def forward(self, x):
            scaled = norm(x)
            factors.append(((scaled[:, 0] - scaled[:, 1]) / (x[:, 0] - x[:, 1])).double())
            return scaled

    model = nn.Sequential(*(m for _ in range(30) for m in (nn.Linear(8, 8, bias=False), Watched())))
    for layer in model[::2]:
        layer.weight.data = 1e-4 * torch.eye(8)
    x = torch.randn(3, 8)
    model(x)
    expected = torch.stack(factors).log2().mul(2).sum(0) + x.double().square().sum(1).log2()
    net = as_net(model)
    net.masks = {n: w != 0 for n, w in net.weights.items()}
    [(_, counts)], _ = active_paths(net, [(x, None)])
    assert expected.min() > 700
    assert float(contract(counts).log2()) == pytest.approx(expected.exp2().sum().log2().item(), rel=1e-4)


# --- models as people use them --------------------------------------------------------------------------------------


def clip_resnet():
    from open_clip.modified_resnet import ModifiedResNet

    model = ModifiedResNet((1, 1, 1, 1), output_dim=16, heads=4, image_size=64, width=8)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # starts at zero, which leaves the shortcuts only
            nn.init.ones_(parameter)
    return model


def clip_transformer():
    from open_clip.transformer import QuickGELU, VisionTransformer

    return VisionTransformer(64, 32, width=32, layers=2, heads=2, mlp_ratio=4, output_dim=16, act_layer=QuickGELU)


def from_timm(name, **options):
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **options)


class Encoder(nn.Module):
    """Torch's own encoder has a fused path of its own in eval mode."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        return self.encoder(self.patches(x).flatten(2).mT)


def swin():
    import torchvision

    return torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=10)


MODELS = {
    "vit": lambda: from_timm("vit_tiny_patch16_224", img_size=64, depth=2),
    "convnext": lambda: from_timm("convnext_atto", depths=(1, 1, 1, 1)),
    "convnext_v2": lambda: from_timm("convnextv2_atto", depths=(1, 1, 1, 1)),
    "efficientnet": lambda: from_timm("efficientnet_b0"),
    "clip_resnet": clip_resnet,
    "clip_transformer": clip_transformer,
    "torch_encoder": Encoder,
    "swin": swin,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_scores_of_real_models_are_finite_and_mostly_not_zero(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    batches = [(torch.randn(2, 3, 64, 64), None)]
    names = prunable(model, batches[0][0])
    net = Net(model, {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in names})  # traced once
    for scorer in [*(PX(variant=v) for v in VARIANTS), SynFlow(), SynFlowL2()]:
        scores = scorer.score(net, batches)
        assert scores.keys() == net.masks.keys()
        assert all(torch.isfinite(s).all() for s in scores.values()), scorer
        formed = {n for n, s in scores.items() if not s.any()}
        assert not formed, (scorer, formed)
        rest = torch.cat([s.flatten() for s in scores.values()])
        # The joint reading of CLIP's small ResNet: what ReLUs close on both samples is no path.
        assert (rest != 0).double().mean() > (0.4 if name == "clip_resnet" else 0.7), scorer


# --- errors ---------------------------------------------------------------------------------------------------------


class Ending(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.first, self.second, self.ending = nn.Linear(4, 4), nn.Linear(4, 4), ending

    def forward(self, x):
        return self.ending(self.first(x), self.second(x))


REFUSED = {
    "softmax last": (lambda a, b: a.softmax(1), "carries no path"),
    "softmax hidden": (lambda a, b: a.softmax(1) @ torch.ones(4, 4), "carries no path"),
    "softmax added": (lambda a, b: a + b.softmax(1), r"aten\.add\.Tensor of an activation and a factor"),
    "softmax subtracted": (lambda a, b: a - b.softmax(1), r"aten\.sub\.Tensor of an activation and a factor"),
    "softmax beside": (lambda a, b: torch.cat([a, b.softmax(1)]), r"aten\.cat\.default of an activation and a factor"),
    "softmax in addcmul": (
        lambda a, b: torch.addcmul(b.softmax(1), a, torch.ones(4)),
        r"aten\.addcmul\.default of an activation and a factor",
    ),
    "softmax in addmm": (
        lambda a, b: torch.addmm(b.softmax(1), a, torch.ones(4, 4)),
        r"aten\.addmm\.default of an activation and a factor",
    ),
    "softmax in maximum": (
        lambda a, b: torch.maximum(b.softmax(1), a),
        r"aten\.maximum\.default of an activation and a factor",
    ),
    "range without zero": (lambda a, b: a.clamp(min=1.0), r"aten\.clamp\.default with a range that leaves out zero"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("scorer", ["px", "synflow"])
def test_what_no_path_explains_is_refused(scorer, name):
    ending, message = REFUSED[name]
    with pytest.raises(pxframe.PxframeError, match=message):
        pxframe.score(Ending(ending), [(torch.randn(2, 4), None)], scorer=scorer)


def test_what_only_forms_a_factor_may_be_anything():
    model = Ending(lambda a, b: a * torch.sigmoid(torch.erf(b)))
    scores = pxframe.score(model, [(torch.randn(2, 4), None)])
    assert (scores["first.weight"] > 0).all()
    assert not scores["second.weight"].any()


def test_an_output_without_a_path_beside_one_with_paths_adds_nothing():
    batches = [(torch.randn(2, 4), None)]
    torch.manual_seed(0)
    both = pxframe.score(Ending(lambda a, b: (b * a.sigmoid(), b.softmax(1))), batches)
    torch.manual_seed(0)
    one = pxframe.score(Ending(lambda a, b: b * a.sigmoid()), batches)
    assert all(s.equal(one[n]) for n, s in both.items())
    assert one["second.weight"].any()
