"""What `rollout-bench` calls in a sidecar."""

from __future__ import annotations

import os

from rollout_plugin import Call, Plugin, Reply, method, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class BenchSidecar(Plugin):
    name = "bench_sidecar"
    version = "0.1.0"

    @method
    def echo(self, params: object, call: Call) -> Reply:
        """The params and the payload, unchanged."""
        return Reply(params, call.payload)

    @method
    async def aecho(self, params: object, call: Call) -> Reply:
        """As echo, on the event loop."""
        return Reply(params, call.payload)

    @method
    def hold(self, params: object, call: Call) -> Iterator[int]:
        """This process's id, as a sign that the call has come; then nothing until it is given up."""
        yield os.getpid()
        call.wait(call.remaining)


run(BenchSidecar)
