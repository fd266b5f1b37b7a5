"""Operations against their own Jacobian; invariances; depth; errors."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import pxframe
from pxframe.network.net import Net
from pxframe.scoring.paths import active_paths, jacobian_norms, open_paths
from pxframe.scoring.saliencies import contract


def grid(x):
    """Twelve positions, some of them outside of the map."""
    at = torch.arange(24, dtype=x.dtype).view(1, 3, 4, 2)
    return (1.3 * (at * at + 1).sin()).expand(len(x), -1, -1, -1)


def pixels(x):
    """The centre of every pixel, up to rounding: none of its neighbours is read."""
    at = F.affine_grid(torch.eye(2, 3, dtype=x.dtype)[None], [1, 1, *x.shape[2:]], align_corners=True)
    return (at * 3 / 3).expand(len(x), -1, -1, -1)


LINEAR = {
    "avg_pool": lambda x: F.avg_pool2d(x, 2),
    "avg_pool_padded": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "avg_pool_inside": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
    "avg_pool_ceil": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_one": lambda x: F.adaptive_avg_pool2d(x, 1),
    "mean": lambda x: x.mean((2, 3)),
    "mean_all": lambda x: x.mean((1, 2, 3), keepdim=True),
    "sum": lambda x: x.sum(1, keepdim=True),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, size=(9, 8), mode="bilinear"),
    "bilinear_corners": lambda x: F.interpolate(x, size=(9, 11), mode="bilinear", align_corners=True),
    "bilinear_down": lambda x: F.interpolate(x, size=(3, 2), mode="bilinear", antialias=True),
    "by_a_factor": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, size=(7, 12), mode="bicubic"),
    "shortcut_a": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)),
    "cat": lambda x: torch.cat([x, 3 * x[:, :1], torch.ones_like(x[:, :1])], 1),
    "difference": lambda x: x - 2 * x.flip(3),
    "scaled": lambda x: x / 4 * torch.tensor([1.0, -3.0]).to(x).view(1, 2, 1, 1) + 5,
    "shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x], 1), 2),
    "chunk": lambda x: x.chunk(2, 1)[1] + x.transpose(2, 3).mT[:, :1],
    "reflection": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "replication": lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
    "patches": lambda x: F.unfold(x, 3, stride=2, padding=1),
    "overlaps": lambda x: F.fold(x[:, :, :4, :4].reshape(len(x), 4, 8), (3, 5), 2),
    "sliding": lambda x: x.unfold(2, 3, 1).unfold(3, 2, 2),
    "unsafe_split": lambda x: torch.unsafe_split(x, 1, 1)[1],
    "grid": lambda x: F.grid_sample(x, grid(x), align_corners=False),
    "grid_corners": lambda x: F.grid_sample(x, grid(x), align_corners=True),
    "grid_border": lambda x: F.grid_sample(x, grid(x), padding_mode="border", align_corners=False),
    "grid_reflection": lambda x: F.grid_sample(x, grid(x), padding_mode="reflection", align_corners=False),
    "grid_nearest": lambda x: F.grid_sample(x, grid(x), mode="nearest", align_corners=False),
    "grid_on_pixels": lambda x: F.grid_sample(x, pixels(x), align_corners=True),
    "flatten": lambda x: x.flatten(1).unsqueeze(1).expand(-1, 2, -1).reshape(len(x), -1),
}


class Then(nn.Module):
    """A linear operation behind a 1x1 convolution that is the identity, so that there is something to prune."""

    def __init__(self, operation):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        self.operation = operation

    def forward(self, x):
        return self.operation(self.conv(x))


def as_net(model):
    return Net(model, {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1})


def total(values):
    return float(contract(values))


@pytest.mark.parametrize("name", LINEAR)
def test_fixed_coefficients_against_the_jacobian(name):
    """g counts where the Jacobian is not zero, h sums its squares, both with all 1x1 weights at 1 where g sees them."""
    model = Then(LINEAR[name]).double()
    torch.manual_seed(0)
    x = torch.randn(3, 2, 6, 5 + (name in ("chunk", "difference")), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: model.operation(v.view(1, *x.shape[1:])), x[:1].flatten())
    jacobian = jacobian.flatten(0, -2)  # [outputs, inputs]
    jacobian = torch.where(jacobian.abs() < 1e-12, 0.0, jacobian)
    net = as_net(model)
    # g takes kept weights as 1: only the identity's may be kept.
    net.masks = {**net.masks, "conv.weight": model.conv.weight != 0}
    [(_, counts)], _ = active_paths(net, [(x[:2], None), (x[2:], None)])
    expected = (jacobian != 0).double() @ x.square().sum(0).flatten()
    assert torch.allclose(counts[0].mantissa.flatten() * 2.0 ** int(counts[0].exponent), expected)
    for power in (1, 2):
        values, _ = open_paths(net, x, power)
        expected = jacobian.abs().pow(power).sum(1)
        assert torch.allclose(values[0].mantissa.flatten() * 2.0 ** int(values[0].exponent), expected)


GATES = [nn.LeakyReLU(0.2), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ReLU6(), nn.Tanh(), nn.ELU()]


@pytest.mark.parametrize("activation", GATES, ids=lambda a: type(a).__name__)
def test_gates_replay_what_f_let_through(activation):
    """f(x) = W2 (a(z) * z), a = phi(z) / z: with one input and one output the path's share of ||J_v||^2 is (a x)^2."""
    model = nn.Sequential(nn.Linear(1, 3), activation, nn.Linear(3, 1)).double()
    x = torch.tensor([[1.7], [-2.9], [0.4]], dtype=torch.float64)
    z = model[0](x)
    expected = (activation(z) / z * x).square().sum().item()
    [(_, counts)], _ = active_paths(as_net(model), [(x, None)])
    assert total(counts) == pytest.approx(expected)
    values, _ = open_paths(as_net(model), x, 2)
    paths = (model[0].weight.flatten() * model[2].weight.flatten()).square().sum().item()
    assert total(values) == pytest.approx(paths)


def random_batch_norm(bn):
    for tensor in (bn.weight, bn.bias, bn.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(bn.running_var, 0.2, 5.0)


@pytest.mark.parametrize("scorer", ["px", "synflow", "synflow_l2", "joint"])
def test_folding_batch_norm_changes_no_score(scorer):
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.Conv2d(6, 5, 3, padding=1), nn.Linear(5, 4)]
    norms = [nn.BatchNorm2d(6), nn.BatchNorm2d(5)]
    for bn in norms:
        random_batch_norm(bn)
    model = nn.Sequential(
        convs[0], norms[0], nn.ReLU(), convs[1], norms[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), convs[2]
    )
    model.double().eval()
    folded = nn.Sequential(
        *(fuse_conv_bn_eval(c, b) if b else c for c, b in ((convs[0], norms[0]), (convs[1], norms[1])))
    )
    folded = nn.Sequential(folded[0], nn.ReLU(), folded[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), convs[2])
    batches = [(torch.randn(4, 3, 9, 9, dtype=torch.float64), None)]
    options = {"scorer": "px", "variant": "joint"} if scorer == "joint" else {"scorer": scorer}
    plain, fused = (list(pxframe.score(m, batches, **options).values()) for m in (model, folded))
    for a, b in zip(plain, fused, strict=True):
        assert a.max() > 0
        assert torch.allclose(a, b, rtol=1e-9, atol=0)


@pytest.mark.parametrize("scorer", ["px", "synflow", "synflow_l2", "joint"])
def test_scores_are_conserved_across_every_cut_of_a_chain(scorer):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 7),
        nn.ReLU(),
        nn.Linear(7, 4),
    )
    random_batch_norm(model[1])
    options = {"scorer": "px", "variant": "joint"} if scorer == "joint" else {"scorer": scorer}
    scores = pxframe.score(model, [(torch.randn(5, 3, 16, 16), None)], **options)
    totals = [s.double().sum().item() for s in scores.values()]
    assert totals[0] > 0
    assert totals == pytest.approx([totals[0]] * 4, rel=1e-5)
    # ... and across the units in between: what flows into a hidden unit flows out of it.
    into, out_of = scores["7.weight"].double().sum(1), scores["9.weight"].double().sum(0)
    assert torch.allclose(into, out_of, rtol=1e-4)


@pytest.mark.slow
def test_counts_beyond_any_float_keep_their_ratios():
    """400 layers of width 64: about 64**400 paths. The number is exact in Python's integers."""
    width, depth = 64, 400
    layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1.0 / width)
    model = nn.Sequential(*layers)
    [(_, counts)], _ = active_paths(as_net(model), [(torch.ones(2, width), None)])
    assert float(contract(counts).log2()) == pytest.approx(1 + (depth + 1) * math.log2(width))
    scores = pxframe.score(model, [(torch.ones(2, width), None)])
    assert all(torch.isfinite(s).all() and (s > 0).all() for s in scores.values())
    assert torch.allclose(scores["0.weight"], scores["399.weight"], rtol=1e-4)


def test_a_branch_whose_counts_dwarf_the_other_leaves_both_right():
    """A skip beside 60 layers: the branch is measured many times on its way, the skip is not."""

    class Lopsided(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Sequential(*(nn.Linear(32, 32, bias=False) for _ in range(60)))

        def forward(self, x):
            return x + self.branch(x)

    model = Lopsided()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1 / 32)
    [(_, counts)], _ = active_paths(as_net(model), [(torch.ones(1, 32), None)])
    assert float(contract(counts).log2()) == pytest.approx(61 * 5, abs=1e-4)
    net = as_net(model)
    net.masks["branch.7.weight"][:] = False  # now the branch carries nothing, at a huge exponent
    [(_, counts)], _ = active_paths(net, [(torch.ones(1, 32), None)])
    assert total(counts) == pytest.approx(32)


def test_many_small_scores_of_a_huge_total_stay_finite():
    """R is beyond float32 and every score a millionth of it: no factor on the way may overflow."""
    model = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(3)))
    for layer in model:
        nn.init.constant_(layer.weight, 1e6)
    scores = pxframe.score(model, [(torch.full((2, 1000), 1e-16), None)], scorer="px")
    for score in scores.values():
        assert torch.isfinite(score).all()
        assert torch.allclose(score, scores["0.weight"][0, 0].expand_as(score))
        assert score.max() > 1


def test_an_unknown_operation_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return torch.erf(self.fc(x))

    with pytest.raises(pxframe.PxframeError, match=r"does not know the operation aten\.erf\.default"):
        pxframe.score(Odd(), [(torch.randn(2, 4), None)], scorer="synflow")


def test_a_model_that_cannot_be_traced_is_an_error():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(
        pxframe.PxframeError, match=r"asks for the values of a tensor in the model itself \(Branching\)"
    ):
        pxframe.score(Branching(4, 4), [(torch.ones(2, 4), None)])


def test_norms_of_one_linear_layer_by_hand():
    model = nn.Linear(3, 2, bias=True).double()
    x = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]], dtype=torch.float64)
    # one path per weight: sum over samples and outputs of x_i^2, and one derivative of 1 per weight
    assert [float(n) for n in jacobian_norms(as_net(model), [(x, None)])] == pytest.approx([2 * 15.0, 6.0])


class Difference(nn.Module):
    """One branch minus three times the other, in every spelling of torch."""

    def __init__(self, spelling):
        super().__init__()
        self.a, self.b, self.spelling = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), spelling

    def forward(self, x):
        return self.spelling(self.a(x), self.b(x))


@pytest.mark.parametrize(
    ("spelling", "by_a", "by_b"),
    [
        (lambda a, b: torch.rsub(a, b, alpha=3), 3, 1),  # b - 3 a
        (lambda a, b: torch.sub(a, b, alpha=3), 1, 3),
        (lambda a, b: torch.add(a, b, alpha=3), 1, 3),
    ],
    ids=["rsub", "sub", "add"],
)
def test_alpha_scales_the_term_it_belongs_to(spelling, by_a, by_b):
    model = Difference(spelling)
    scores = pxframe.score(model, [(torch.randn(2, 3), None)], scorer="synflow")
    assert torch.allclose(scores["a.weight"], by_a * model.a.weight.abs())
    assert torch.allclose(scores["b.weight"], by_b * model.b.weight.abs())


class Pooled(nn.Module):
    """Pooling behind a kernel of one, which leaves everything as it is."""

    def __init__(self, pool, axes):
        super().__init__()
        self.one, self.pool = (nn.Conv2d if axes == 2 else nn.Conv3d)(1, 1, 1, bias=False), pool
        nn.init.ones_(self.one.weight)

    def forward(self, x):
        return self.pool(self.one(x))


@pytest.mark.parametrize(
    ("pool", "size", "windows"),
    [
        (nn.AdaptiveMaxPool2d((2, 3)), (5, 4), [[(0, 3), (2, 5)], [(0, 2), (1, 3), (2, 4)]]),
        (nn.MaxPool3d(2), (4, 2, 5), [[(0, 2), (2, 4)], [(0, 2)], [(0, 2), (2, 4)]]),
    ],
    ids=["adaptive", "3d"],
)
def test_max_pooling_takes_what_f_took_and_all_with_open_gates(pool, size, windows):
    net = as_net(Pooled(pool, len(size)).double())
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    held = [tuple(slice(*w) for w in places) for places in product(*windows)]
    counts, _ = active_paths(net, [(x, None)])
    [value] = counts[0].values
    found = value.mantissa.flatten() * 2.0 ** int(value.exponent)
    assert found.tolist() == pytest.approx([float(x[0, 0][at].square().max()) for at in held])
    for way, expected in (("sum", [x[0, 0][at].numel() for at in held]), ("max", [1] * len(held))):
        [value], _ = open_paths(net, x, 2, pool=way)
        assert (value.mantissa.flatten() * 2.0 ** int(value.exponent)).tolist() == expected


def test_padded_average_pooling_in_three_dimensions_against_the_jacobian():
    net = as_net(Pooled(nn.AvgPool3d(3, stride=2, padding=1, count_include_pad=False), 3).double())
    x = torch.rand(1, 1, 4, 3, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net, x).flatten(5).squeeze()
    [value], _ = open_paths(net, x, 2)
    found = value.mantissa.flatten() * 2.0 ** int(value.exponent)
    assert torch.allclose(found, jacobian.flatten(0, -2).square().sum(-1))


def test_open_max_pooling_takes_maps_that_are_smaller_than_its_kernel():
    model = nn.Sequential(nn.Conv3d(1, 1, 1, bias=False), nn.MaxPool3d(3, stride=1, padding=1)).double()
    x = torch.ones(1, 1, 2, 4, 4, dtype=torch.float64)
    (found,), _ = open_paths(as_net(model), x, 2)
    expected = F.conv3d(x, torch.ones(1, 1, 3, 3, 3, dtype=torch.float64), padding=1) * model[0].weight.square()
    torch.testing.assert_close(found.mantissa * 2.0 ** int(found.exponent), expected)
