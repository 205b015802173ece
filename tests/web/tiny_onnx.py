"""An ONNX file with the inputs and outputs of `gemoclap export`, whose scores depend on level and brightness."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ["calm", "loud & clear", "<b>bright</b>"]


def write_tiny_model(path: Path, **fields) -> Path:
    """Write the model and its description.

    Args:
        path: The `.onnx` file; the description lies beside it.
        fields: Fields of the description that differ.

    Returns:
        The path.
    """
    nodes = [
        ("Slice", ["waveform", "zero", "last", "one"], ["before"]),
        ("Slice", ["waveform", "one", "far", "one"], ["after"]),
        ("Sub", ["after", "before"], ["steps"]),
        ("ReduceSumSquare", ["waveform"], ["energy"]),
        ("ReduceSumSquare", ["steps"], ["change"]),
        ("Concat", ["energy", "change"], ["sums"]),
        ("Cast", ["lengths"], ["counts"]),
        ("Unsqueeze", ["counts", "one"], ["column"]),
        ("Div", ["sums", "column"], ["means"]),
        ("Add", ["means", "floor"], ["raised"]),
        ("Log", ["raised"], ["features"]),
        ("MatMul", ["features", "weights"], ["logits"]),
        ("Softmax", ["logits"], ["scores"]),
        ("LpNormalization", ["features"], ["embedding"]),
    ]
    attributes = {
        "ReduceSumSquare": {"axes": [1], "keepdims": 1},
        "Concat": {"axis": 1},
        "Cast": {"to": TensorProto.FLOAT},
        "Softmax": {"axis": -1},
        "LpNormalization": {"axis": 1, "p": 2},
    }
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([-1]),
        "far": np.array([2**31 - 1]),
        "floor": np.array(1e-6, np.float32),
        "weights": np.array([[-0.2, 0.6, -0.5], [-0.3, -0.2, 0.7]], np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs, **attributes.get(kind, {})) for kind, inputs, outputs in nodes],
        "tiny",
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(LABELS)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    description = {"format": 1, "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    description |= {"model": "tiny", "labels": LABELS, "sampling_rate": 16000, "min_seconds": 0.1}
    description |= {"silence_peak": 1e-4, "calibrated": False, "quantized": None} | fields
    path.with_suffix(".json").write_text(json.dumps(description), encoding="utf-8")
    return path
