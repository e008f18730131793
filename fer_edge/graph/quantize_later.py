"""Maxima of float numbers taken before they are rounded: the same numbers, a quarter of them to round."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from fer_edge.graph.index import GraphIndex

__all__ = ["pool_before_quantizing"]


def pool_before_quantizing(model: ModelProto) -> ModelProto:
    """Convolution, rectifier, quantizer, pooling become convolution, pooling, rectifier, quantizer.

    For convolutions that were left float; behind a quantized one everything stays as it is. A rectifier and rounding
    keep the order of numbers, so the result is the same to the bit. ONNX Runtime pools 8-bit numbers in the order of a
    float convolution one by one, which took longer than any layer of a small encoder; and it would move the quantizer
    back in front of the pooling if they were neighbours, which is why the rectifier stands between them.

    Args:
        model: with Q/DQ pairs; not changed.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    moved: dict[int, Sequence[NodeProto]] = {}
    for node in result.graph.node:
        if node.op_type == "Relu" and (found := _way_to_pooling(node, index)) is not None:
            dequantizer, pool = found
            made, pooled, read = node.input[0], pool.output[0], dequantizer.output[0]
            between = index.free_name(f"{made}_pooled")
            pool.input[0], pool.output[0], node.input[0] = made, between, between
            for reader in index.consumers(pooled):
                reader.input[:] = [read if name == pooled else name for name in reader.input]
            moved |= {id(node): (pool, node), id(pool): ()}
    body = [each for node in result.graph.node for each in moved.get(id(node), (node,))]
    del result.graph.node[:]
    result.graph.node.extend(body)
    return result


def _way_to_pooling(rectifier: NodeProto, index: GraphIndex) -> tuple[NodeProto, NodeProto] | None:
    """Dequantizer and pooling behind a float convolution's rectifier, if nothing else reads on the way."""
    convolution = index.producer(rectifier.input[0])
    if convolution is None or convolution.op_type != "Conv" or len(index.consumers(rectifier.input[0])) != 1:
        return None
    source = index.producer(convolution.input[0])
    if source is not None and source.op_type == "DequantizeLinear":
        return None
    found: list[NodeProto] = []
    tensor = rectifier.output[0]
    for kind in ("QuantizeLinear", "DequantizeLinear", "MaxPool"):
        readers = index.consumers(tensor)
        if len(readers) != 1 or readers[0].op_type != kind or len(readers[0].output) != 1:
            return None
        tensor = readers[0].output[0]
        found.append(readers[0])
        if tensor in index.outputs:
            return None
    _, dequantizer, pool = found
    return dequantizer, pool
