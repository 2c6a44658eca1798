"""The items of a batch, as they come from the worker."""

from __future__ import annotations

from rollout_plugin._json import Malformed, Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rollout_plugin._plugin import Call


class Batch:
    """The items that a handler is called for, and their numbers in the batch."""

    def __init__(self, call: Call, items: list[dict[str, Any]], tail: bytes) -> None:
        self.call = call
        self.numbers: list[int] = []
        self.params: list[Any] = []
        self.unreadable: list[tuple[int, str]] = []
        """The numbers of items that are JSON, but nothing that Python reads, and why."""
        call.payloads = payloads = []
        at = 0
        for n, item in enumerate(items):
            params, end = item["params"], at + item.get("tail", 0)
            if type(params) is Unreadable:
                self.unreadable.append((n, params.reason))
            else:
                self.numbers.append(n)
                self.params.append(params)
                payloads.append(tail[at:end])
            at = end
        if at != len(tail):
            raise Malformed(f"the items of a batch claim {at} of {len(tail)} bytes")
