"""Which networks the methods can read: the tables in docs/families.md.

One model of each family of timm, the smallest or one of reduced depth, scored with seven methods on two small images,
and the models of ``other_models.py`` with four of them::

    python benchmarks/families.py                  # all, and write docs/families.md
    python benchmarks/families.py vgg resnet       # these, and print their rows
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from other_models import MODELS, Case
from tqdm import tqdm

from pxframe.base.errors import PxframeError
from pxframe.network.net import Net
from pxframe.plugin.registry import build
from pxframe.running.inputs import leaves
from pxframe.scoring.prunable import prunable

PAGE = Path(__file__).parent.parent / "docs/families.md"
METHODS = {
    "px": {"type": "px"},
    "px joint": {"type": "px", "variant": "joint"},
    "synflow": {"type": "synflow"},
    "synflow_l2": {"type": "synflow_l2"},
    "logsynflow": {"type": "logsynflow"},
    "snip": {"type": "snip"},
    "grasp": {"type": "grasp"},
}
_COLUMNS = ("operations", "seconds", "zeros, px", "zeros, snip", "not scored by")
#: Methods that score the models of the second table; the others read networks as one of these does.
_FOUR = ("px", "px joint", "synflow", "snip")

#: Family (a module of ``timm.models``) -> model, pixels a side, and what its constructor is given.
FAMILIES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "beit": ("beit_base_patch16_224", 64, dict(img_size=64, depth=2)),
    "byoanet": ("halonet_h1", 256, {}),
    "byobnet": ("test_byobnet", 64, {}),
    "cait": ("cait_xxs24_224", 64, dict(img_size=64, depth=2)),
    "coat": ("coat_tiny", 64, dict(img_size=64)),
    "convit": ("convit_tiny", 64, dict(img_size=64, depth=4)),
    "convmixer": ("convmixer_768_32", 32, {}),
    "convnext": ("test_convnext", 64, {}),
    "cpubone": ("cpubone_nano", 64, {}),
    "crossvit": ("crossvit_tiny_240", 64, {}),
    "csatv2": ("csatv2", 64, {}),
    "cspnet": ("cs3darknet_focus_s", 64, {}),
    "cspnext": ("cspnext_tiny", 64, {}),
    "davit": ("davit_tiny", 64, dict(depths=(1, 1, 2, 1))),
    "deepseek_vit": ("deepseek_vit_412m", 224, dict(depth=2)),
    "deit": ("deit_tiny_patch16_224", 64, dict(img_size=64, depth=2)),
    "densenet": ("densenet121", 64, dict(block_config=(2, 2, 2, 2))),
    "dla": ("dla46x_c", 64, {}),
    "dpn": ("dpn48b", 64, {}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "efficientformer": ("efficientformer_l1", 224, {}),
    "efficientformer_v2": ("efficientformerv2_s0", 64, dict(img_size=64)),
    "efficientnet": ("test_efficientnet", 64, {}),
    "efficientvim": ("efficientvim_m1", 64, {}),
    "efficientvit_mit": ("efficientvit_b0", 64, {}),
    "efficientvit_msra": ("efficientvit_m0", 64, {}),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 64, {}),
    "fasternet": ("fasternet_t0", 64, {}),
    "fastvit": ("fastvit_t8", 64, {}),
    "focalnet": ("focalnet_tiny_srf", 64, {}),
    "gcvit": ("gcvit_xxtiny", 64, dict(img_size=64)),
    "gemma4_vit": ("gemma4_vit_167m", 64, dict(depth=2)),
    "ghostnet": ("ghostnet_050", 64, {}),
    "hardcorenas": ("hardcorenas_b", 64, {}),
    "hgnet": ("hgnetv2_b0", 64, {}),
    "hiera": ("hiera_tiny_224", 64, dict(img_size=64, stages=(1, 1, 2, 1))),
    "hieradet_sam2": ("sam2_hiera_tiny", 64, {}),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "iformer": ("iformer_t", 64, {}),
    "inception_next": ("inception_next_atto", 64, {}),
    "inception_resnet_v2": ("ens_adv_inception_resnet_v2", 96, {}),
    "inception_v3": ("adv_inception_v3", 96, {}),
    "inception_v4": ("inception_v4", 96, {}),
    "lcnetv2": ("lcnetv2_small", 64, {}),
    "levit": ("levit_128s", 64, dict(img_size=64)),
    "lowformer": ("lowformer_b0", 64, {}),
    "mambaout": ("test_mambaout", 64, {}),
    "maxxvit": ("test_coatnet", 64, dict(img_size=64)),
    "metaformer": ("poolformerv2_s12", 64, {}),
    "mlp_mixer": ("gmlp_ti16_224", 64, dict(img_size=64)),
    "mobilenetv3": ("mobilenetv3_small_050", 64, {}),
    "mobilenetv5": ("mobilenetv5_base", 64, {}),
    "mobilevit": ("mobilevit_xxs", 64, {}),
    "mvitv2": ("mvitv2_tiny", 64, {}),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 64, dict(depth=2)),
    "nasnet": ("nasnetalarge", 64, {}),
    "nest": ("jx_nest_tiny", 64, dict(img_size=64)),
    "nextvit": ("nextvit_small", 64, dict(depths=(1, 1, 5, 1))),
    "nfnet": ("test_nfnet", 64, {}),
    "pit": ("pit_ti_224", 64, dict(img_size=64)),
    "pnasnet": ("pnasnet5large", 64, {}),
    "pvt_v2": ("pvt_v2_b0", 64, {}),
    "qwen3_vit": ("qwen3_vit_88m", 64, dict(depth=2)),
    "rdnet": ("rdnet_tiny", 64, {}),
    "regnet": ("regnetx_002", 64, {}),
    "repghost": ("repghostnet_050", 64, {}),
    "repvit": ("repvit_m1", 64, {}),
    "res2net": ("res2next50", 64, {}),
    "resnest": ("resnest14d", 64, {}),
    "resnet": ("test_resnet", 64, {}),
    "resnetv2": ("resnetv2_18", 64, {}),
    "rexnet": ("rexnet_100", 64, {}),
    "selecsls": ("selecsls42", 64, {}),
    "senet": ("legacy_seresnet18", 64, {}),
    "sequencer": ("sequencer2d_s", 64, dict(layers=(1, 1, 1, 1))),
    "shvit": ("shvit_s1", 64, {}),
    "sknet": ("skresnet18", 64, {}),
    "starnet": ("starnet_s050", 64, {}),
    "swiftformer": ("swiftformer_xs", 64, {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 64, dict(img_size=64, depths=(1, 1, 2, 1))),
    "swin_transformer_v2": ("swinv2_tiny_window16_256", 64, dict(img_size=64, depths=(1, 1, 2, 1))),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 64, dict(img_size=64, depths=(1, 1, 2, 1))),
    "tiny_vit": ("tiny_vit_5m_224", 64, {}),
    "tnt": ("tnt_s_legacy_patch16_224", 64, dict(img_size=64, depth=2)),
    "tresnet": ("tresnet_m", 64, {}),
    "twins": ("twins_svt_small", 64, dict(depths=(1, 1, 2, 1))),
    "vgg": ("vgg11", 64, {}),
    "visformer": ("visformer_tiny", 64, dict(img_size=64)),
    "vision_transformer": ("test_vit", 64, {}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 64, dict(img_size=64)),
    "vision_transformer_relpos": ("test_vit_relpos", 64, dict(img_size=64)),
    "vision_transformer_sam": ("samvit_base_patch16_224", 64, dict(depth=2, global_attn_indexes=(1,))),
    "vitamin": ("vitamin_small_224", 64, dict(img_size=64)),
    "volo": ("volo_d1_224", 64, dict(img_size=64)),
    "vovnet": ("ese_vovnet19b_slim_dw", 64, {}),
    "xception": ("legacy_xception", 64, {}),
    "xception_aligned": ("xception41p", 64, {}),
    "xcit": ("xcit_nano_12_p8_224", 64, dict(depth=2)),
}


@dataclass
class Row:
    """What scoring one model gave.

    Attributes:
        name: the first cell of the row.
        about: the cells after it: what the model is given, and in the first table its name.
        operations: nodes of its graph.
        seconds: of all scorings together, tracing included.
        zeros: the share of scores that are exactly 0, by method.
        refused: the message of each method that did not score it.
    """

    name: str
    about: tuple[str, ...]
    operations: int = 0
    seconds: float = 0.0
    zeros: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def cells(self) -> list[str]:
        shares = [f"{self.zeros[m]:.0%}" if m in self.zeros else "" for m in ("px", "snip")]
        return [
            *(self.name, *self.about, str(self.operations or ""), f"{self.seconds:.0f}"),
            *(*shares, ", ".join(self.refused)),
        ]


def case(name: str) -> tuple[Case, tuple[str, ...]]:
    """A model of the family (or of that name) with random weights, and the cells that tell of it."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in MODELS:
            found = MODELS[name]()
            sizes = dict.fromkeys("x".join(map(str, t.shape)) for t in leaves(found.inputs) if t.ndim > 2)
            return found, (" and ".join(sizes),)
        model, pixels, options = FAMILIES[name]
        made = timm.create_model(model, num_classes=10, **options).eval()
    return Case(made, torch.randn(2, 3, pixels, pixels), F.cross_entropy), (model, str(pixels))


def scored(name: str) -> Row:
    """Score a model with every method; all of them share its graph."""
    (model, inputs, loss), about = case(name)
    row = Row(name, about)
    start = time.perf_counter()
    names = prunable(model, inputs)
    net = Net(model, {n: torch.ones_like(model.get_parameter(n), dtype=torch.bool) for n in names}, loss)
    for method in METHODS if name in FAMILIES else _FOUR:
        try:
            scores = build("scorer", METHODS[method]).score(net, [(inputs, torch.tensor([1, 2]))])
        except PxframeError as error:
            row.refused[method] = str(error)
            continue
        values = torch.cat([score.flatten() for score in scores.values()])
        if not torch.isfinite(values).all():
            row.refused[method] = "scores that are not finite"
        row.zeros[method] = float((values == 0).double().mean())
    row.seconds = time.perf_counter() - start
    if "px" in row.zeros:
        row.operations = len(net.trace(inputs).nodes)
    return row


def on_page() -> dict[str, tuple[set[str], float]]:
    """Family or model -> the methods that do not score it, and the share of zeros with PX, as the page has it."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| [a-z]", line)]
    return {
        row[0]: (set(filter(None, row[-1].split(", "))), float(row[-3].rstrip("%") or 0) / 100)
        for row in rows
        if row[0] in FAMILIES or row[0] in MODELS
    }


def table(rows: list[Row], *about: str) -> str:
    header = (*about, *_COLUMNS)
    lines = [header, ["---"] * len(header), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def replaced(text: str, start: str, end: str, by: str) -> str:
    """The text with what stands from ``start`` up to the next ``end`` replaced."""
    at = text.index(start)
    return text[:at] + by + text[text.index(end, at) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="these families or models, printed; default: all")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in FAMILIES and name not in MODELS]
    if unknown:
        parser.error(f"no such family or model: {', '.join(unknown)}")
    if asked.names:
        for name in asked.names:
            row = scored(name)
            print(f"| {' | '.join(row.cells())} |", *row.refused.values(), sep="\n", flush=True)
        return
    text = PAGE.read_text(encoding="utf-8")
    rows = [scored(name) for name in tqdm(FAMILIES, unit="family")]
    text = replaced(text, "| family |", "\n\n", table(rows, "family", "model", "pixels").rstrip())
    rows = [scored(name) for name in tqdm(MODELS, unit="model")]
    text = replaced(text, "| model | input |", "\n\n", table(rows, "model", "input").rstrip())
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
