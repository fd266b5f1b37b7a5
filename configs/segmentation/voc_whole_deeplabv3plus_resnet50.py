"""DeepLabV3+ on ResNet-50, backbone and head pruned together on the task's own images (the PX paper's Fig. 4)."""

_base_ = ["voc_deeplabv3plus_resnet50.py"]

prune = dict(
    _delete_=True, whole=True, scorer=dict(type="px", rounds=100), sparsity=[0.9, 0.982], samples=100, batch_size=4
)
