"""The precision in which a device multiplies."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are native on the device. Emulated ones are slower than those of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
