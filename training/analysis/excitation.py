"""Which photographs excite a first-layer kernel most, and where in them.

Legend: B photographs, C channels (RGB), H height, W width.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from training.images.preprocess import centre_view
from training.network.alexnet import KERNELS, AlexNet

STRIDE: Final = 4  # of conv1, pixels


@torch.inference_mode()
def strongest(net: AlexNet, mean_CHW: Tensor, pixels_BCHW: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """The largest activation of kernel `index` in each square uint8 (B, 3, 256, 256), float32 (B,), and where, int64 (B, 2).

    It is conv1's, bias included, before the nonlinearity, of windows every four pixels from the square's corner, all within it.
    Where is the top and left of the window, in pixels of the squares that the network's crops are cut from.
    """
    square = net.config.square_size
    x_BCHW = centre_view(pixels_BCHW, mean_CHW, square, square) * net.scale_C[:, None, None]
    weight, bias = net.conv1.weight[index : index + 1], net.conv1.bias
    responses_BHW = F.conv2d(x_BCHW, weight, None if bias is None else bias[index : index + 1], STRIDE)[:, 0]
    values_B, at_B = responses_BHW.flatten(1).max(1)
    places = 1 + (square - KERNELS[0]) // STRIDE
    return values_B, STRIDE * torch.stack([at_B // places, at_B % places], 1)
