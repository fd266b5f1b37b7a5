"""The detection task: Pascal VOC's layout, torchvision's detectors by config, mean AP against sums done by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from slim_tasks import train_slim
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.files.writing import read_json, write_json
from pxframe.job.config import load_config
from pxframe.job.job import Job
from pxframe.plugin import registry
from pxframe.training.hooks.weights import TicketHook
from pxframe_plugins.cifar_resnet import CifarResNet
from pxframe_plugins.timm_models import Timm
from pxframe_tasks.demo.digits import SCENE_CLASSES, write_scenes
from pxframe_tasks.detection.model import MeanAP
from pxframe_tasks.detection.voc_boxes import VOC_CLASSES, VOCBoxes

torch.set_num_threads(1)  # in networks this small, threads wait for each other
provider = CifarResNet()
CLASSES = SCENE_CLASSES[1:]
FEW = {
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 30,
    "rpn_post_nms_top_n_test": 30,
    "box_batch_size_per_image": 16,
}
HEADS = {
    "fasterrcnn": ({"type": "FasterRCNN", **FEW}, 3),
    "retinanet": ({"type": "RetinaNet"}, 4),
    "plain": ({"type": "FasterRCNN", "rpn_post_nms_top_n_test": 20}, 0),
    "fcos": ({"type": "FCOS"}, 4),
}


SMALL = [name for name in HEADS if name != "plain"]


def annotation(*objects):
    """XML of (name, difficult, box as in the file)."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    parts = []
    for name, difficult, box in objects:
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, box, strict=True))
        parts.append(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>"
            f"<part><name>head</name><bndbox>{corners}</bndbox></part></object>"
        )
    return f"<annotation><size><width>48</width><height>40</height></size>{''.join(parts)}</annotation>"


def voc(root, trains=4, vals=2, classes=("aeroplane", "person")):
    """Black pictures 48 wide and 40 high with a white object, and a difficult one beside it."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", trains), ("val", vals)):
        names = [f"2008_{split}{i}" for i in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
        for i, name in enumerate(names):
            x, y = rng.integers(1, 17, 2).tolist()
            image = np.zeros((40, 48, 3), dtype=np.uint8)
            image[y - 1 : y + 19, x - 1 : x + 15] = 255
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=100)
            objects = [(classes[i % 2], 0, (x, y, x + 15, y + 19)), (classes[0], 1, (40, "30.0", 48, 40))]
            (root / "Annotations" / f"{name}.xml").write_text(annotation(*objects))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return voc(tmp_path_factory.mktemp("data") / "VOCdevkit" / "VOC2012")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    write_scenes(root, train=6, test=2, size=32)
    return root


def boxes(root, split, **changes):
    return {"type": "VOCBoxes", "root": str(root), "split": split} | changes


def task(root, detector="fasterrcnn", **options):
    head, levels = HEADS[detector]
    digits = {} if (root / "Annotations" / "2008_train0.xml").exists() else {"classes": CLASSES}
    config = {
        "type": "detection",
        "data": {"train": boxes(root, "train", **digits), "test": boxes(root, "val", **digits)},
        "head": head,
        # FCOS normalises 32 groups of channels
        "fpn": {"out_channels": 32 if detector == "fcos" else 8, "maps": [1, 2]},
        "anchors": {"sizes": [[10], [14], [18], [24]][:levels], "aspect_ratios": [[1]] * levels},
        "min_size": 32,
        "max_size": 64,
        "epochs": 2,
        "batch_size": 2,
        "optimizer": {"type": "AdamW", "lr": 0.003},
    }
    return registry.build("task", config | options)


def run(task, folder, model=None, provider=provider, **options):
    torch.manual_seed(0)
    model = provider.build(depth=8, width=8) if model is None else model
    return task.runner(model, provider, work_dir=folder, device="cpu", seed=1, resume=True, **options)


@pytest.mark.parametrize("head", SMALL)
def test_detectors_are_a_matter_of_config_and_keep_a_ticket(scenes, tmp_path, head):
    it = task(scenes, head)
    it.prepare()
    model = provider.build(depth=8, width=8)
    ticket = pxframe.prune(model, None, scorer="magnitude", sparsity=0.8, exclude=("linear.*",))
    runner = run(it, tmp_path, model)
    runner.register_hook(TicketHook(ticket, "linear"))
    runner.train()
    result = runner.test()
    assert result.keys() == {"mAP", "mAP50", "mAP75"}
    state = dict(runner.model.named_parameters())
    for name, mask in ticket.masks.items():
        assert (state[f"backbone.{name}"][~mask] == 0).all()
        assert (state[f"backbone.{name}"][mask] != 0).any()


def test_it_learns(scenes, tmp_path, capsys):
    train = boxes(scenes, "train", classes=CLASSES)
    it = task(scenes, data={"train": train, "test": train}, epochs=25, optimizer={"type": "AdamW", "lr": 0.005})
    it.prepare()
    runner = run(it, tmp_path)
    runner.train()
    assert runner.test()["mAP50"] > 40
    assert capsys.readouterr() == ("", "")


def test_resumed_run_ends_as_an_uninterrupted_one(scenes, tmp_path):
    whole = run(task(scenes), tmp_path / "whole")
    whole.train()

    class Kill(Exception):
        pass

    cut = run(task(scenes), tmp_path / "cut")
    step = cut.model.train_step

    def fail(*args, **kwargs):
        if cut.iter == 4:  # in the second epoch of three steps
            raise Kill
        return step(*args, **kwargs)

    cut.model.train_step = fail
    with pytest.raises(Kill):
        cut.train()
    resumed = run(task(scenes), tmp_path / "cut")
    resumed.train()
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert whole.test() == resumed.test()


def found(boxes, scores, labels):
    return {"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}


def truth(boxes, labels, crowd=()):
    iscrowd = torch.tensor([i in crowd for i in range(len(labels))])
    return {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "iscrowd": iscrowd}


A, B, C = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 70]
NEAR_A = [0.0, 0, 10, 7.2]  # intersection over union with A: 0.72
# Of recall 0, 0.01, ..., 1, 34 are at most 1/3 and 33 more at most 2/3. A twice, C once, B never: the precision is
# 1 at recall 1/3 and 2/3 at recall 2/3.
BY_HAND = {
    "one missed, one twice": (
        [
            (found([A, A], [0.9, 0.8], [1, 1]), truth([A, B], [1, 1])),
            (found([C], [0.7], [1]), truth([C], [1])),
        ],
        (100 * (34 + 33 * 2 / 3) / 101,) * 3,
    ),
    "not quite": ([(found([NEAR_A], [0.5], [1]), truth([A], [1]))], (50, 100, 0)),
    "mean over classes": ([(found([A, B], [0.5, 0.5], [1, 1]), truth([A, B], [1, 2]))], (50,) * 3),
    "difficult ones are ignored": (
        [(found([B, A], [0.9, 0.5], [1, 1]), truth([A, B, C], [1] * 3, (1, 2)))],
        (100,) * 3,
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_mean_ap_is_as_by_hand(case):
    pairs, expected = BY_HAND[case]
    metric = MeanAP()
    metric.process(None, [{"found": f, "truth": t} for f, t in pairs])
    assert tuple(metric.evaluate(len(pairs)).values()) == pytest.approx(expected)


def test_it_is_torchvision_s_own_faster_rcnn(root, tmp_path):
    timm = Timm()
    mean, std = (10.0, 20, 30), (50.0, 60, 70)
    fpn = {"maps": [1, 2, 3, 4]}
    it = task(root, "plain", fpn=fpn, anchors=None, mean=mean, std=std)
    runner = run(it, tmp_path, timm.build("resnet18"), timm)
    with torch.no_grad():  # so that boxes differ from each other
        runner.model.detection_head.roi_heads.box_predictor.cls_score.weight.mul_(30)
    options = {"image_mean": [m / 255 for m in mean], "image_std": [s / 255 for s in std]}
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d)
    theirs = FasterRCNN(body, 21, min_size=32, max_size=64, rpn_post_nms_top_n_test=20, **options)
    theirs.load_state_dict(it.export(runner.model, "fc"))
    batch = next(iter(runner.test_dataloader))
    runner.model.eval()
    ours = runner.model.test_step(batch)
    with torch.no_grad():
        for mine, other in zip(ours, theirs.eval()([i / 255 for i in batch["inputs"]]), strict=True):
            assert len(other["scores"]) > 5
            for key, value in other.items():
                assert torch.allclose(mine["found"][key].float(), value.float(), atol=1e-3)


def test_images_reach_the_backbone_normalised_as_for_scoring(scenes, tmp_path):
    it = task(scenes, mean=(0, 10, 20), std=(1, 2, 4))
    runner = run(it, tmp_path)
    seen = []
    runner.model.backbone.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    runner.model.eval()
    for i in range(6):
        runner.model.test_step(pseudo_collate([it.dataset("train")[i]]))
    picture = torch.from_numpy(np.array(Image.open(scenes / "JPEGImages" / "train_00003.jpg"))).float()
    expected = ((picture - torch.tensor((0.0, 10, 20))) / torch.tensor((1.0, 2, 4))).permute(2, 0, 1)
    assert torch.equal(seen[3][0], expected)
    [(inputs, _)] = it.batches(6, 6, seed=0)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(inputs, torch.cat([seen[i] for i in order]))


def test_scoring_takes_images_of_any_size_and_no_labels(root, tmp_path):
    it = task(root, min_size=40)
    sizes = [tuple(inputs.shape) for inputs, _ in it.batches(4, 3, seed=0)]
    assert sizes == [(3, 3, 64, 64), (1, 3, 64, 64)]  # 40 by 48, padded
    model = provider.build(depth=8, width=4)
    ticket = pxframe.prune(model, it.batches(2, 2, seed=0), scorer="px", sparsity=0.5, rounds=1)
    assert ticket.sparsity == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(PxframeError, match=r"boxes and no label.*prune\.data"):
        pxframe.prune(model, it.batches(2, 2, seed=0), scorer="snip", sparsity=0.5)
    with pytest.raises(PxframeError, match="as a whole"):
        run(it, tmp_path).model([torch.zeros(3, 64, 64)])


def test_the_head_s_learning_rate_and_timm_s_own_weights(root, tmp_path):
    timm = Timm()
    model = timm.build("resnet10t")
    before = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("fc.")}
    sgd = {"type": "SGD", "lr": 0.1}
    runner = run(task(root, head_lr_mult=10, optimizer=sgd), tmp_path, model, timm)
    rates = {id(p): g["initial_lr"] for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    parameters = dict(runner.model.named_parameters())
    assert {n.split(".")[0]: rates[id(p)] for n, p in parameters.items()} == pytest.approx(
        {"backbone": 0.1, "detection_head": 1.0}
    )
    assert any(n.startswith("detection_head.backbone.fpn.") for n in parameters)
    runner.model.init_weights()  # as mmengine does when training starts
    assert {n for n in parameters if n.startswith("backbone.")} == {f"backbone.{n}" for n in before}
    assert all(torch.equal(parameters[f"backbone.{n}"], p) for n, p in before.items())


@pytest.mark.parametrize("detector", SMALL)
def test_mixed_precision_leaves_anchors_and_boxes_alone(root, tmp_path, detector):
    runner = run(task(root, detector, min_size=512, max_size=1024), tmp_path)
    batch = next(iter(runner.train_dataloader))
    generator = runner.model.detection_head
    generator = generator.rpn.anchor_generator if detector == "fasterrcnn" else generator.anchor_generator
    seen, losses = [], []
    generator.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    for mixed in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            losses.append(runner.model.train()(**batch, mode="loss"))
    assert torch.equal(*seen)
    for name, value in losses[0].items():
        assert losses[1][name].dtype == torch.float32
        assert losses[1][name].item() == pytest.approx(value.item(), rel=0.05, abs=0.01)


def white(image):
    """Edges of what is white: left, top, right, bottom."""
    rows, columns = (np.flatnonzero((image[0].numpy() > 128).any(axis)) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


T = "torchvision.transforms.v2."


@pytest.mark.parametrize(
    "transform",
    [
        [],
        [{"type": T + "RandomHorizontalFlip", "p": 1.0}],
        [{"type": T + "RandomVerticalFlip", "p": 1.0}, {"type": T + "Resize", "size": [80, 96]}],
        [{"type": T + "CenterCrop", "size": [20, 24]}],
    ],
)
def test_boxes_go_with_their_objects(root, transform):
    data = VOCBoxes(root, "train", transform=transform)
    for item in data:
        sample = item["data_samples"]
        assert item["inputs"].dtype == torch.uint8
        assert sample["boxes"][0].tolist() == white(item["inputs"])
        assert sample["iscrowd"].tolist() == [False, True][: len(sample["labels"])]
    cropped = bool(transform) and "Crop" in transform[0]["type"]
    assert len(sample["boxes"]) == (1 if cropped else 2)  # the one in the corner is out of the picture
    if not transform:
        assert sample["boxes"][1].tolist() == [39, 29, 48, 40]
    assert [o.labels[0].item() for o in data.objects] == [1, 15, 1, 15]
    assert VOCBoxes(root, "train", difficult=False)[0]["data_samples"]["iscrowd"].tolist() == [False]


def test_images_without_objects_and_of_several_sizes_train_together(tmp_path):
    root = voc(tmp_path / "data")
    (root / "Annotations" / "2008_train1.xml").write_text(annotation())
    Image.new("L", (33, 70)).save(root / "JPEGImages" / "2008_train1.jpg")
    for head in SMALL:
        runner = run(task(root, head, epochs=1, batch_size=4), tmp_path / head)
        batch = next(iter(runner.train_dataloader))
        losses = runner.model.train().train_step(batch, runner.optim_wrapper)
        parts = [value.item() for key, value in losses.items() if key != "loss"]
        assert len(parts) > 1
        assert np.isfinite(parts).all()
        assert losses["loss"].item() == pytest.approx(sum(parts))


def test_written_scenes_have_tight_boxes(tmp_path):
    write_scenes(tmp_path, train=4, test=3, size=48)
    seen = 0
    for split, count in (("train", 4), ("val", 3)):
        data = VOCBoxes(tmp_path, split, CLASSES)
        assert len(data) == count
        for name, item in zip(data.names, data, strict=True):
            label = np.asarray(Image.open(tmp_path / "SegmentationClass" / f"{name}.png"))
            label = np.where(label == 255, 0, label)
            sample = item["data_samples"]
            covered = np.zeros_like(label)
            for (x0, y0, x1, y1), digit in zip(sample["boxes"].int().tolist(), sample["labels"].tolist(), strict=True):
                inside = label[y0:y1, x0:x1] == digit
                assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
                covered[y0:y1, x0:x1] = 1
                seen += 1
            assert not label[covered == 0].any()  # nothing sticks out, and no digit is without a box
    assert seen >= 14


@pytest.mark.parametrize("file", sorted(Path("configs/detection").glob("voc*.py")), ids=lambda file: file.stem)
def test_the_voc_configs_build_and_train(root, tmp_path, monkeypatch, file):
    monkeypatch.setenv("PXFRAME_DATA", str(root.parent.parent))
    small = {"backbone.model": "resnet10t", "backbone.pretrained": False, "tasks.voc2012.num_workers": 0}
    small |= {"tasks.voc2012.min_size": 64, "tasks.voc2012.batch_size": 2, "tasks.voc2012.epochs": 1}
    config = load_config(file, small | {"tasks.voc2012.fpn.out_channels": 8})
    job = Job.from_config(config, work_dir=tmp_path)
    it = job.tasks["voc2012"]
    assert it.dataset("train").classes == VOC_CLASSES
    assert [len(it.dataset(s)) for s in ("train", "test")] == [4, 2]
    assert not any(o.difficult.any() for o in it.dataset("train").objects)
    runner = run(it, tmp_path / "run", job.provider.build(**job.backbone), job.provider)
    assert len(runner.param_schedulers) == 2
    anchors = runner.model.detection_head
    anchors = anchors.rpn.anchor_generator if "fasterrcnn" in file.stem else anchors.anchor_generator
    assert [sizes[0] for sizes in anchors.sizes] == [32, 64, 128, 256, 512]
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters() if p.requires_grad}
    runner.train()
    after = dict(runner.model.named_parameters())
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {name.split(".")[0] for name in before}  # each part, the head among them
    assert runner.test().keys() == {"mAP", "mAP50", "mAP75"}


def test_the_digits_config_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"tasks.boxes.prepare.train": 2, "tasks.boxes.prepare.test": 1, "pretrain.prepare.part": (0.0, 0.02)}
    small["tasks.boxes.batch_size"] = 2
    job = Job.from_config(load_config("configs/detection/digits.py", small), work_dir=tmp_path / "work")
    runner = run(job.tasks["boxes"], tmp_path / "run", job.provider.build(**job.backbone), job.provider)
    assert len(runner.train_dataloader) == 1


def changed(root, part, **changes):
    data = {"train": boxes(root, "train"), "test": boxes(root, "val")}
    data[part] |= changes
    return {"data": data}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda r: changed("/no/such", "train"), ("data['train']", "/no/such")),
        (lambda r: changed(r, "test", split="vall"), ("data['test']", "'split' 'vall'", "did you mean 'val'?")),
        (lambda r: changed(r, "train", type="VOCBoxs"), ("data['train']", "VOCBoxs")),
        (lambda r: changed(r, "train", type="torchvision.datasets.FakeData", split=0), ("data['train']",)),
        (lambda r: changed(r, "train", clases=[]), ("data['train']", "clases")),
        (lambda r: changed(r, "train", classes=["person"]), ("2008_train0.xml", "'aeroplane'", "person")),
        (lambda r: changed(r, "test", classes=VOC_CLASSES[::-1]), ("'classes'",)),
        (lambda r: changed(r, "train", transform=[{"type": T + "Flip"}]), ("data['train']", "Flip")),
        (lambda r: {"min_size": 800, "max_size": 600}, ("'min_size'", "'max_size'")),
    ],
)
def test_mistakes_show_before_work_begins(root, change, parts):
    with pytest.raises(PxframeError) as error:
        task(root, **change(root)).prepare()
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("file", "text", "part"),
    [
        ("Annotations/2008_train0.xml", None, "there is no"),
        ("JPEGImages/2008_train0.jpg", None, "there is no"),
        ("Annotations/2008_train0.xml", "<annotation>", "is no XML"),
        ("Annotations/2008_train0.xml", annotation(("person", 0, (5, 1, 5, 9))), "5, 1, 5, 9"),
        ("Annotations/2008_train0.xml", annotation(("person", 0, (5, "", 8, 9))), "'bndbox/ymin'"),
        ("Annotations/2008_train0.xml", annotation(("person", 0, (5, "x", 8, 9))), "four numbers"),
        ("ImageSets/Main/train.txt", "", "no images"),
        ("Annotations/2008_train0.xml", annotation(("person", 1, (1, 1, 8, 9))), "no image has an object"),
    ],
)
def test_damaged_data(tmp_path, file, text, part):
    root = voc(tmp_path / "data", trains=1)
    (root / file).unlink() if text is None else (root / file).write_text(text)
    with pytest.raises(PxframeError) as error:
        task(root).prepare()
    message = str(error.value)
    assert "\n" not in message
    assert part in message
    if part not in ("no images", "no image has an object"):
        assert Path(file).name in message


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"head": {"type": "FasterRCN"}}, "did you mean 'FasterRCNN'?"),
        ({"head": {"type": "FCOS", "nms_tresh": 0.5}}, "did you mean 'nms_thresh'"),
        ({"head": {"type": "RetinaNet", "min_size": 3}}, "'min_size'"),
        ({"fpn": {"maps": [7]}}, "'maps' [7]: the backbone gives 3"),
        ({"fpn": {"maps": [2, 1]}}, "rising"),
        ({"fpn": {"extra": "p6"}}, "did you mean 'p6p7'?"),
        ({"fpn": {"chanels": 3}}, "chanels"),
        ({"anchors": {"sizes": [[8]], "aspect_ratios": [[1]]}}, "strides 2, 4, 8"),
    ],
)
def test_mistakes_in_the_head(root, tmp_path, change, part):
    with pytest.raises(PxframeError) as error:
        run(task(root, **{"fpn": {"maps": [1, 2]}} | change), tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert "'head'" in text
    assert part in text


def test_boxes_found_are_saved_and_drawn_beside_the_true_ones(root, tmp_path):
    it = task(root, "fcos", save_predictions=True)
    with pytest.raises(PxframeError, match="no predictions were saved; add save_predictions=True to the task"):
        it.pictures(tmp_path, 2)
    runner = run(it, tmp_path)
    seen = []
    process = MeanAP.process
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MeanAP, "process", lambda self, batch, samples: seen.extend(samples) or process(self, batch, samples)
        )
        runner.test()
    file = tmp_path / "predictions.json"
    found = read_json(file)["found"]
    assert [f["boxes"] for f in found] == [s["found"]["boxes"].tolist() for s in seen]
    assert [f["labels"] for f in found] == [s["found"]["labels"].tolist() for s in seen]
    assert len(found) == 2

    truths = [item["data_samples"] for item in it.dataset("test")]
    for score, drawn in ((0.5, True), (0.49, False)):
        said = [
            {"boxes": t["boxes"].tolist(), "labels": t["labels"].tolist(), "scores": [score] * len(t["labels"])}
            for t in truths
        ]
        write_json(file, {"found": said})
        for picture, name in zip(it.pictures(tmp_path, 2), it.dataset("test").names, strict=True):
            assert picture.name == name
            same = picture.truth if drawn else picture.image
            assert np.array_equal(np.asarray(picture.predicted), np.asarray(same))
            assert not np.array_equal(np.asarray(picture.truth), np.asarray(picture.image))
    picture = it.pictures(tmp_path, 1)[0]
    left, top = (round(240 / 48 * edge) for edge in truths[0]["boxes"][0][:2].tolist())
    colour = picture.colours[VOC_CLASSES[truths[0]["labels"][0] - 1]]
    assert "#{:02x}{:02x}{:02x}".format(*picture.truth.getpixel((left, top))) == colour
    write_json(file, {"found": said[:1]})
    with pytest.raises(PxframeError, match="is not of these 2 test images; run the job again"):
        it.pictures(tmp_path, 1)


@pytest.mark.parametrize("head", ["fasterrcnn", pytest.param("retinanet", marks=pytest.mark.slow)])
def test_a_slim_detector_is_trained(scenes, tmp_path, head):
    result, maps = train_slim(task(scenes, head, epochs=1), tmp_path, 32)
    assert all(level.shape[:2] == (2, 8) for level in maps.values())
    assert result["metrics"].keys() == {"mAP", "mAP50", "mAP75"}
