"""A job on three digits with two seeds, for the tests of commands that measure its tickets; and its task alone."""

#: The task, ``_digits`` in a config; ``{data!r}`` is the folder that the images are written to.
TASK = """
_root, _folder = {data!r}, "torchvision.datasets.ImageFolder"
_digits = dict(
    type="classification",
    prepare=dict(
        type="pxframe_tasks.demo.digits.write_folders", root=_root, size=8, classes=[0, 1, 2], part=(0.0, 0.2)
    ),
    data=dict(train=dict(type=_folder, root=_root + "/train"), test=dict(type=_folder, root=_root + "/test")),
    head=None,
    epochs=1,
)
"""

_CONFIG = """
seed = [0, 1]
backbone = dict(type="cifar_resnet", depth=8, width=4, num_classes=3)
prune = dict({prune}, samples=6, data=_digits, exclude=[])
tasks = dict(digits=_digits)
"""


def digits_job(data, prune):
    """The text of a config.

    Args:
        data: folder that the images are written to.
        prune: what ``prune`` holds besides, as Python.
    """
    return TASK.format(data=str(data)) + _CONFIG.format(prune=prune)
