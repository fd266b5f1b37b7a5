"""``attention.py`` on MobileNetV3, where squeeze-excite holds a fifth of the weights: an hour of a CPU core."""

_base_ = ["attention.py"]

backbone = dict(_delete_=True, type="timm", model="mobilenetv3_small_050", num_classes=10)

prune = dict(scorer=[dict(type="px", factors="recorded"), dict(type="px", factors="shared")])
