"""A small job for the tests of the grid, in one process or in many."""

import json

CONFIG = """
def _digits(classes, **more):
    root = "{data}/" + "".join(map(str, classes))
    train, test = (dict(type="torchvision.datasets.ImageFolder", root=root + part) for part in ("/train", "/test"))
    make = dict(type="pxframe_tasks.demo.digits.write_folders", root=root, size=8, classes=classes, part=(0.0, 0.1))
    return {{
        **dict(type="classification", prepare=make, data=dict(train=train, test=test)),
        **dict(epochs=2, batch_size=16, amp="float32"),
        **more,
    }}

backbone = dict(type="cifar_resnet", depth=8, width=2, num_classes=3)
prune = dict(scorer="magnitude", sparsity=0.8, samples=6, controls=[], data=_digits([0, 1, 2], head=None))
tasks = dict(a=_digits([3, 4, 5, 6]), b=_digits([7, 8]))
"""


def write(folder, *changes):
    """The config's path, with these changes of its text."""
    text = CONFIG.format(data=folder / "data")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


def rows(work):
    """The rows of results.json; the seconds that a run took are its own."""
    found = json.loads((work / "results.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]
