"""Which tickets a job makes: their names, their settings, and the controls beside them."""

import pytest
import torch

from pxframe.base.errors import PxframeError
from pxframe.job.config import Prune
from pxframe.job.prunings import controls_of, prunings
from pxframe.ticket.ticket import Ticket


def test_controls_stand_beside_every_ticket_and_sparser_ones_come_later():
    found = prunings(Prune(scorer=["magnitude", "snip"], sparsity=[0.98, 0.9]))
    assert list(found) == [
        *("dense", "magnitude-90.00", "snip-90.00", "random-90.00"),
        *("magnitude-98.00", "snip-98.00", "random-98.00"),
    ]
    assert [p.method for p in found.values()] == ["dense", *("magnitude", "snip", "random") * 2]
    assert found["dense"].settings["sparsity"] == 0


def test_a_name_does_not_depend_on_what_else_is_in_the_job():
    one = prunings(Prune(scorer={"type": "px", "variant": "joint"}, sparsity=0.9))
    more = prunings(Prune(scorer=[{"type": "px", "variant": "joint"}, "px", "snip"], sparsity=[0.9, 0.5]))
    assert list(one) == ["dense", "px-variant=joint-90.00", "random-90.00"]
    assert set(one) < set(more)
    assert all(one[name] == more[name] for name in one)


def test_options_that_are_the_usual_ones_are_not_in_the_name():
    assert "px-90.00" in prunings(Prune(scorer={"type": "px", "rounds": 100, "variant": "paper"}, sparsity=0.9))
    assert "px-rounds=3-90.00" in prunings(Prune(scorer={"type": "px", "rounds": 3}, sparsity=0.9))


def test_each_method_may_have_settings_of_its_own_and_its_control_shares_them():
    found = prunings(
        Prune(
            scorer=[
                {"type": "magnitude", "scope": "layer", "distribution": "erk"},
                {"type": "magnitude", "granularity": "2:4"},
                {"type": "snip", "exclude": ["conv1.*"]},
                "px",
            ],
            sparsity=0.5,
            scope="global",
        )
    )
    assert list(found) == [
        "dense",
        "magnitude-scope=layer-distribution=erk-50.00",
        "magnitude-granularity=2_4-50.00",
        "snip-exclude=conv1._-50.00",
        "px-50.00",
        "random-scope=layer-distribution=erk-50.00",
        "random-granularity=2_4-50.00",
        "random-exclude=conv1._-50.00",
        "random-50.00",
    ]
    random = found["random-scope=layer-distribution=erk-50.00"].settings
    assert (random["scope"], random["distribution"], random["rounds"]) == ("layer", "erk", 1)
    assert found["random-granularity=2_4-50.00"].settings["granularity"] == "2:4"
    assert found["random-exclude=conv1._-50.00"].settings["exclude"] == ["conv1.*"]
    assert found["random-50.00"].settings["scope"] == "global"


def test_a_control_that_the_config_lists_is_not_made_twice():
    assert list(prunings(Prune(scorer=["magnitude", "random"], sparsity=0.9))) == [
        *("dense", "magnitude-90.00", "random-90.00")
    ]


def test_a_refit_that_chooses_a_mask_is_not_a_control_s():
    found = prunings(
        Prune(
            scorer=[
                dict(type="magnitude", rounds=3, refit=dict(type="bn", when="between")),
                dict(type="lamp", refit="bn"),
            ],
            sparsity=0.5,
        )
    )
    assert [name for name in found if name.startswith("random")] == ["random-50.00", "random-refit=bn-50.00"]


def test_controls_may_be_chosen():
    assert list(prunings(Prune(scorer="magnitude", sparsity=0.9, controls=[]))) == ["magnitude-90.00"]
    assert list(prunings(Prune(scorer="magnitude", sparsity=0.9, controls=["snip"]))) == [
        "magnitude-90.00",
        "snip-90.00",
    ]
    with pytest.raises(PxframeError, match="did you mean 'random'"):
        prunings(Prune(scorer="magnitude", controls=["randum"]))


def test_a_setting_that_differs_from_the_job_s_is_in_the_name():
    found = prunings(Prune(scorer=["px", {"type": "px", "rounds": 100}], rounds=5, sparsity=0.9, controls=[]))
    assert list(found) == ["px-90.00", "px-rounds=100-90.00"]
    assert [p.settings["rounds"] for p in found.values()] == [5, 100]


def test_levels_have_as_many_digits_as_they_need():
    names = list(prunings(Prune(scorer="px", sparsity=[0.98201, 0.98204, 0.98], controls=[])))
    assert sorted(names) == ["px-98.00", "px-98.201", "px-98.204"]


def test_names_are_names_of_files():
    granularity = {"type": "channel", "compute_aware": True}
    (_, name, _) = prunings(Prune(scorer={"type": "magnitude", "granularity": granularity}, sparsity=0.5))
    assert name == "magnitude-granularity=channel+compute_aware=True-50.00"
    exclude = [f"layer{i}.conv.weight" for i in range(40)]
    names = list(prunings(Prune(scorer={"type": "magnitude", "exclude": exclude}, sparsity=0.5)))
    other = list(prunings(Prune(scorer={"type": "magnitude", "exclude": exclude[1:]}, sparsity=0.5)))
    assert max(map(len, names)) < 120
    assert names[1] != other[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": ["snip", "snip"]}, "two tickets"),
        ({"scorer": "snip", "sparsity": [0.9, 0.9 + 1e-12]}, "two tickets 'snip-90.00'"),
        ({"scorer": {"type": "snip", "round": 3}}, "scorer 'snip' takes no option 'round'; did you mean 'rounds'"),
        ({"sparsity": 90}, "did you mean 0.9, which removes 90 %"),
        ({"scorer": {"type": "snip", "scope": "layers"}}, "did you mean 'layer'"),
        ({"scorer": {"type": "snip", "schedul": "linear"}}, "schedul"),
        ({"scorer": {"type": "snip", "granularity": "2:4"}, "sparsity": 0.9}, "leave sparsity out"),
    ],
)
def test_mistakes_cost_one_line(settings, message):
    with pytest.raises(PxframeError, match=message):
        prunings(Prune(**settings))


def test_a_given_ticket_s_controls_have_its_layers_size_and_granularity():
    masks = {"a.weight": torch.rand(8, 8) > 0.3}
    meta = {"granularity": {"type": "2:4"}, "sparsity_asked": 0.5, "scope": "global", "distribution": "uniform"}
    found = controls_of(Ticket(masks, meta), Prune(), ["a.weight", "b.weight"])
    assert list(found) == ["dense", "random-50.00"]
    assert found["random-50.00"].settings["exclude"] == ["b.weight"]
    assert found["random-50.00"].settings["granularity"] == {"type": "2:4"}
    plain = controls_of(Ticket(masks), Prune(), ["a.weight"])
    assert [p.settings["sparsity"] for p in plain.values()] == [0, pytest.approx(1 - masks["a.weight"].float().mean())]


def test_targets_are_levels_too_and_controls_share_them():
    channel = {"type": "channel", "groups": "mean"}
    found = prunings(Prune(scorer="magnitude", sparsity=0.5, flops=[0.5, 0.25], granularity=channel))
    assert list(found) == [
        *("dense", "magnitude-50.00", "magnitude-flops=50.00", "random-50.00", "random-flops=50.00"),
        *("magnitude-flops=25.00", "random-flops=25.00"),
    ]
    random = found["random-flops=25.00"].settings
    assert (random["flops"], random["granularity"]) == (0.25, channel)
    assert "sparsity" not in random
    assert not {"flops", "params", "latency"} & found["dense"].settings.keys()


def test_a_scorer_may_have_targets_of_its_own():
    own = {"type": "snip", "params": [0.3], "granularity": "channel"}
    found = prunings(Prune(scorer=["magnitude", own], sparsity=0.9, controls=[]))
    assert list(found) == ["snip-granularity=channel-params=30.00", "magnitude-90.00"]


def test_controls_of_a_ticket_share_its_target():
    mask = torch.tensor([[True, False]])
    meta = {"granularity": {"type": "channel"}, "sparsity_asked": 0.3, "target": {"flops": 0.5}}
    found = controls_of(Ticket({"weight": mask}, meta), Prune(), ["weight"])
    assert found["random-flops=50.00"].settings["flops"] == 0.5


@pytest.mark.parametrize("key", ["flops", "sparsity"])
def test_an_empty_list_of_levels_is_refused(key):
    with pytest.raises(PxframeError, match=f"'{key}' is an empty list"):
        prunings(Prune(scorer="magnitude", **{key: []}))
