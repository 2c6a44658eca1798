"""Write a rollout plugin in Python: a class with methods, run as a sidecar beside a worker.

    from rollout_plugin import Call, Plugin, Reply, method, run

    class Shout(Plugin):
        name = "shout"
        version = "0.1.0"

        @method
        def shout(self, params, call):
            "The text in capitals."
            return params["text"].upper()

    run(Shout)

A handler is a plain function, which runs on a thread, or an ``async def``, which runs on an event
loop. It returns a JSON value, or a `Reply` for bytes beside one; what it yields goes ahead of that, as
parts of the answer. What it raises reaches the caller with its traceback. ``logging`` goes to the
worker; ``print`` is harmless. A method that is called for a job's items reads its parameters as a
`JobItem`.

`rollout_plugin.testing` runs a plugin without a worker. `rollout_plugin.gymnasium` and
`rollout_plugin.dataset` are plugins already, for environments and datasets that know nothing of this.

Standard library only; it imports little, because a worker waits for it.
"""

from rollout_plugin._job import JobItem
from rollout_plugin._plugin import BadConfig, BadParams, Call, Cancelled, Plugin, Reply, method
from rollout_plugin._serve import run

__all__ = [
    "BadConfig",
    "BadParams",
    "Call",
    "Cancelled",
    "JobItem",
    "Plugin",
    "Reply",
    "method",
    "run",
]
