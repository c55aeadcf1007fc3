"""What a device multiplies in."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether it does so itself: products that are emulated are slower than those of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
