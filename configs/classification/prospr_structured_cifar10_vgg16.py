"""ProsPr (ICLR 2022), section 4.3: whole channels of VGG-16 on CIFAR-10."""

_base_ = ["prospr_structured_cifar10_resnet18.py"]

backbone = dict(_delete_=True, type="vgg16_bn")
