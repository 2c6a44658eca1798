"""The smallest useful sidecar: it answers with what it was asked."""

from rollout_plugin import Call, Plugin, Reply, method


class Sample(Plugin):
    name = "sample_sidecar"
    version = "0.1.0"

    @method
    def echo(self, params: object, call: Call) -> Reply:
        """The params and the payload, unchanged."""
        return Reply(params, call.payload)
