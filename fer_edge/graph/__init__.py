"""ONNX graphs: read and check them, measure them, and the passes that rewrite them. Needs onnx, nothing heavier."""
