"""What PyInstaller cannot see: names loaded on first use, recipes and bundles, and OpenCV's cascades.

Only the engines that are installed when the program is built are in it.
"""

from __future__ import annotations

import importlib.util

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

hiddenimports = [*collect_submodules("fer_edge.core"), *collect_submodules("fer_edge.runtime")]
datas = collect_data_files("fer_edge")
for package in ("cv2", "onnxruntime", "openvino"):
    if importlib.util.find_spec(package):
        hiddenimports.append(package)
if importlib.util.find_spec("cv2"):
    datas += collect_data_files("cv2", subdir="data")
datas += copy_metadata("fer-edge")
