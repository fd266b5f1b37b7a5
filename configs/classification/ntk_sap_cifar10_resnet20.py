"""NTK-SAP (Wang et al., ICLR 2023): ResNet-20 on CIFAR-10 with the rounds and draws of the authors' script.

Training is that of PX, which follows it.
"""

_base_ = ["px_cifar10_resnet20.py"]

prune = dict(scorer=[dict(type="ntk_sap", rounds=20, draws=5, redraw=True)], batch_size=100)
