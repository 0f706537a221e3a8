"""First weights as papers had them, where they are not PyTorch's."""

from torch import nn

__all__ = ["glorot_"]


def glorot_(module: nn.Module, *, last_normal: bool = False) -> None:
    """Draw every convolution's and linear layer's weights by Glorot & Bengio (2010), biases 0.

    Uniform within ``sqrt(6 / (fan_in + fan_out))``: what TensorFlow does unless told otherwise, and
    so what the code of MAML and Reptile starts from. For 64 filters of 3x3 it is 1.7 times as wide
    as PyTorch's, which batch norm hides from the answers but not from the size of a gradient step.

    Args:
        module: changed in place.
        last_normal: the last linear layer from a normal distribution of deviation 1 instead, as in
            MAML's code for Omniglot.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if last_normal:
        last = [layer for layer in layers if isinstance(layer, nn.Linear)][-1:]
        for layer in last:
            nn.init.normal_(layer.weight)
