"""A method that does nothing, for what an item costs beside the work in it."""

from __future__ import annotations

from rollout_plugin import Call, Plugin, method, run


class NoopSidecar(Plugin):
    name = "noop_sidecar"
    version = "0.1.0"

    @method
    def run(self, params: object, call: Call) -> None:
        """Null, whatever the params are."""


run(NoopSidecar)
