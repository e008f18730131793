"""Estimates to an MQTT broker: a topic per face, and a retained one for the recogniser's state.

    python embed_mqtt.py --source 0 --host localhost

Only labels and numbers leave the process, and only because this program sends them. Needs: pip install paho-mqtt
"""

from __future__ import annotations

import argparse
import json

import paho.mqtt.client as mqtt

from fer_edge.runtime import FrameReader, LiveOptions, LiveRecognizer, LiveResult, open_source

TOPIC = "vehicle/expression"


def connect(host: str, port: int) -> mqtt.Client:
    """Connect to a broker, which announces FAILED if this program dies."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.will_set(f"{TOPIC}/state", json.dumps({"state": "FAILED", "because": "the program is gone"}), retain=True)
    client.connect(host, port)
    client.loop_start()  # a thread of paho's; publish only puts the message into its queue
    return client


def publish(client: mqtt.Client, result: LiveResult) -> None:
    """Publish one message per face; old ones are not worth a second delivery (QoS 0)."""
    for estimate in result.estimates:
        client.publish(f"{TOPIC}/face/{estimate.track_id}", json.dumps(estimate.to_json()))


def main(arguments: list[str] | None = None) -> None:
    """Read the options and publish until the source ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="base")
    parser.add_argument("--source", default="0", help="a camera, file or address (fer_edge.runtime.open_source)")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    options = parser.parse_args(arguments)
    client, told = connect(options.host, options.port), None
    with open_source(options.source) as frames:
        live = LiveRecognizer(options.bundle, options=LiveOptions(every_frame=not frames.live))
        with live, FrameReader(frames, live, reopen=lambda: open_source(options.source)):
            for result in live.estimates():
                publish(client, result)
                if result.state != told:
                    told = result.state
                    state = {"state": result.state, "because": result.state_because}
                    client.publish(f"{TOPIC}/state", json.dumps(state), retain=True)
    ended = client.publish(f"{TOPIC}/state", json.dumps({"state": "FAILED", "because": "ended"}), retain=True)
    ended.wait_for_publish(5)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
