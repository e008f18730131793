"""What every room builds on; imports no other room.

- `errors`: the exception tree. `types`: array aliases and the progress callback. `labels`: the seven expressions.
  `label_sets`: the data sets' labels.
- `preprocess`: from a camera image or a cropped face to the network's input.
- `bundle`, `manifest`, `verify`, `signature`: the folder that a runtime opens, its description and its checks;
  `bundle_writer` writes it.
- `metrics`, `accuracy`, `comparison`, `evaluate`: accuracy, calibration error, paired comparison, running a network.
- `files`, `json`, `recipes`: atomic output, JSON and TOML to frozen dataclasses and back.
- `tables`, `plots`: the one way to print a table or draw a plot.
- `machine`, `telemetry`: the machine report, switches against phone-home.
- `cascade`: OpenCV's face detector. `int8_forms`: names of the INT8 variants. `onnx_wire`: ONNX without the `onnx`
  package. `tensorrt_flavours`: the differences between TensorRT versions.
"""
