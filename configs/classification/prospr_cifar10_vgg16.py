"""ProsPr (ICLR 2022): VGG-16 with batch norm on CIFAR-10."""

_base_ = ["prospr_cifar10_resnet18.py"]

backbone = dict(_delete_=True, type="vgg16_bn")
