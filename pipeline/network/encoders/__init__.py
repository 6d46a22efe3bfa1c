"""Use pretrained networks of torchvision and timm as frozen encoders."""
