"""A ROS 2 node: camera images in, the driver's expression out. Not run: no ROS 2 was at hand; read it as a draft.

    ros2 run ... ros2_node.py --ros-args -p bundle:=base -p seat:=left

Subscribes to `image_raw` (sensor_msgs/Image in the encodings below), publishes `expression`
(std_msgs/String with JSON) and `/diagnostics`. `push` never waits, so the executor's thread is not held up.
"""

from __future__ import annotations

import json

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from fer_edge.runtime import LiveOptions, LiveRecognizer, LiveResult

# ROS encoding: layout, bytes per pixel of a row, dtype, channels, rows per picture row
LAYOUTS = {
    "bgr8": ("bgr", np.uint8, 3, 1.0),
    "rgb8": ("rgb", np.uint8, 3, 1.0),
    "rgba8": ("rgba", np.uint8, 4, 1.0),
    "mono8": ("grey", np.uint8, 0, 1.0),
    "mono16": ("grey16", np.uint16, 0, 1.0),
    "yuv422_yuy2": ("yuyv", np.uint8, 2, 1.0),
    "nv12": ("nv12", np.uint8, 0, 1.5),
}
LEVELS = {"OK": DiagnosticStatus.OK, "DEGRADED": DiagnosticStatus.WARN, "FAILED": DiagnosticStatus.ERROR}


class ExpressionNode(Node):
    """Recognises the driver's expression in the images of a topic."""

    def __init__(self) -> None:
        super().__init__("fer_edge")
        bundle = self.declare_parameter("bundle", "base").value
        seat = self.declare_parameter("seat", "").value or None
        self._publisher = self.create_publisher(String, "expression", qos_profile_sensor_data)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # ROS stamps are of the ROS clock, so ages are counted in it.
        options = LiveOptions(clock=lambda: self.get_clock().now().nanoseconds / 1e9, white_level=65535)
        self._live = LiveRecognizer(bundle, seat=seat, on_estimate=self._publish, options=options)
        self.create_subscription(Image, "image_raw", self._push, qos_profile_sensor_data)
        self.create_timer(1.0, self._diagnose)

    def _push(self, image: Image) -> None:
        if image.encoding not in LAYOUTS:
            self.get_logger().warning(f"encoding {image.encoding} is not supported", throttle_duration_sec=10)
            return
        layout, dtype, channels, height = LAYOUTS[image.encoding]
        rows = np.frombuffer(image.data, dtype).reshape(round(image.height * height), -1)
        frame = rows[:, : image.width * max(1, channels)]  # a row may be padded
        frame = frame.reshape(len(rows), image.width, channels) if channels else frame
        self._live.push(frame, image.header.stamp.sec + image.header.stamp.nanosec / 1e9, layout)

    def _publish(self, result: LiveResult) -> None:
        self._publisher.publish(String(data=json.dumps(result.to_json())))

    def _diagnose(self) -> None:
        health = self._live.health()
        status = DiagnosticStatus(level=LEVELS[health.state], name="fer_edge", message=health.because or "")
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def destroy_node(self) -> None:
        """Close the recogniser with the node."""
        self._live.close()
        super().destroy_node()


def main() -> None:
    """Run the node until it is shut down."""
    rclpy.init()
    node = ExpressionNode()
    try:
        rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    main()
