"""EfficientNet-Lite0 when it only answers: its batch norms folded away, and by ONNX Runtime.

Folding leaves convolutions with a clip to 0..6 after some, and sums. ONNX Runtime, where it is
installed (``quickstudy[fast]``), goes through these two to three times as fast as PyTorch does on
a CPU, and tests hold the three to the same features.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Convolution", "by_onnx_runtime", "by_torch", "convolutions"]


class Convolution(NamedTuple):
    """A convolution with the batch norm after it folded in.

    Attributes:
        weight: ``[out,in/groups,k,k]``.
        bias: ``[out]``.
        padding: left, right, above, below.
        stride: in both directions.
        groups: of channels.
        clipped: whether its output is clipped to 0..6.
        adds: back to the output of how many convolutions before this one, which is added; 0 if
            none is.
    """

    weight: Tensor
    bias: Tensor
    padding: tuple[int, int, int, int]
    stride: int
    groups: int
    clipped: bool
    adds: int


def convolutions(network: nn.Module) -> list[Convolution]:
    """The convolutions of an ``efficientnet_lite_pytorch.EfficientNet`` from image to maps."""
    of: Any = network
    blocks = chain.from_iterable(map(_block, of._blocks))
    return [
        _folded(of._conv_stem, of._bn0, True),
        *blocks,
        _folded(of._conv_head, of._bn1, True),
    ]


def _block(block: Any) -> Iterator[Convolution]:
    about = block._block_args
    expands = about.expand_ratio != 1
    if expands:
        yield _folded(block._expand_conv, block._bn0, True)
    yield _folded(block._depthwise_conv, block._bn1, True)
    same = block.id_skip and block._depthwise_conv.stride == (1, 1)
    same = same and about.input_filters == about.output_filters
    yield _folded(block._project_conv, block._bn2, False, adds=(2 + expands) if same else 0)


def _folded(layer: Any, norm: Any, clipped: bool, adds: int = 0) -> Convolution:
    with torch.no_grad():
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = layer.weight * scale.view(-1, 1, 1, 1)
        bias = norm.bias - norm.running_mean * scale
    pad = getattr(layer.static_padding, "padding", (0, 0, 0, 0))
    return Convolution(weight, bias, tuple(pad), layer.stride[0], layer.groups, clipped, adds)


def by_torch(layers: list[Convolution]) -> Callable[[Tensor], Tensor]:
    """``[n,3,H,W] -> [n,D,h,w]`` by PyTorch, channels last."""
    packed = [
        layer._replace(weight=layer.weight.contiguous(memory_format=torch.channels_last))
        for layer in layers
    ]

    def run(x: Tensor) -> Tensor:
        found = [x.contiguous(memory_format=torch.channels_last)]
        for layer in packed:
            left, right, above, below = layer.padding
            z, padding = found[-1], (above, left)
            if (left, above) != (right, below):
                z, padding = F.pad(z, layer.padding), (0, 0)
            z = F.conv2d(z, layer.weight, layer.bias, layer.stride, padding, 1, layer.groups)
            z = z.clamp_(0, 6) if layer.clipped else z
            found = [*found[-3:], z + found[-layer.adds] if layer.adds else z]
        return found[-1]

    return run


def by_onnx_runtime(
    layers: list[Convolution], threads: int = 1
) -> Callable[[Tensor], Tensor] | None:
    """The same by ONNX Runtime, ``None`` where it is not installed; ``threads`` are of a call."""
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        return None
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.32 on it reports to its makers
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        _graph(layers), options, providers=["CPUExecutionProvider"]
    )

    def run(x: Tensor) -> Tensor:
        maps: np.ndarray[Any, Any] = session.run(None, {"0": x.numpy()})[0]
        return torch.from_numpy(maps)

    return run


def _graph(layers: list[Convolution]) -> bytes:
    """As ONNX. The output of layer ``i``, from 1, is called by its number; the image is ``"0"``."""
    onnx: Any = importlib.import_module("onnx")
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes, constants = [], [tensor(np.array(n, np.float32), f"{n}c") for n in (0, 6)]
    for i, layer in enumerate(layers, 1):
        left, right, above, below = layer.padding
        for name, value in (("w", layer.weight), ("b", layer.bias)):
            constants.append(tensor(value.detach().numpy(), f"{i}{name}"))
        steps = ["Conv"] + ["Clip"] * layer.clipped + ["Add"] * (layer.adds > 0)
        more = {
            "Conv": [f"{i}w", f"{i}b"],
            "Clip": ["0c", "6c"],
            "Add": [str(i - layer.adds)],
        }
        name = str(i - 1)
        for step in steps:
            made = str(i) if step == steps[-1] else f"{i}{step}"
            how = {
                "pads": [above, left, below, right],
                "strides": [layer.stride] * 2,
                "group": layer.groups,
            }
            inputs = [name, *more[step]]
            nodes.append(helper.make_node(step, inputs, [made], **how if step == "Conv" else {}))
            name = made
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("0", kind, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(str(len(layers)), kind, None)],
        constants,
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    proto: bytes = model.SerializeToString()
    return proto
