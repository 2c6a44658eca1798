"""Decodes frames for a comparison with another decoder: `python3 codec_peer.py FILE MAX_FRAME`.

The file has cases, each a big-endian u32 with the length of a byte stream, and the stream. A line of
JSON is printed for each: the messages and tails that were read, and how the stream ended.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rollout_plugin._json import Malformed, Unreadable
from rollout_plugin._wire import Wire


def unreadable(value: object) -> object:
    assert type(value) is Unreadable
    return {"$unreadable": value.reason}


def decoded(stream: bytes, max_frame: int) -> dict[str, object]:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            ours.sendall(stream)
            ours.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        wire = Wire(theirs)
        wire.max_frame = max_frame
        frames: list[object] = []
        try:
            while (frame := wire.read()) is not None:
                frames.append([json.dumps(frame[0], default=unreadable), frame[1].hex()])
            end = "end"
        except Malformed as error:
            end = "too_large" if "over max_frame" in str(error) else "malformed"
        return {"frames": frames, "end": end}


def main() -> None:
    data, max_frame = Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        print(json.dumps(decoded(data[at + 4 : at + 4 + size], max_frame)))
        at += 4 + size


if __name__ == "__main__":
    main()
