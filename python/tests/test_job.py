"""What the SDK says of a job's item, and of a configuration and a name that are not its own."""

from __future__ import annotations

import contextlib
import io
import unittest

from rollout_plugin import BadConfig, BadParams, JobItem, Plugin
from rollout_plugin.testing import Host, Refused


class Nameless(Plugin):
    version = "1"

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        if "limit" not in config:
            raise BadConfig("limit is missing")
        if config["limit"] == "?":
            try:
                int("?")
            except ValueError as error:
                raise BadConfig("limit is none") from error


class TestJobItem(unittest.TestCase):
    def test_it_has_its_number_its_seed_and_its_own_params(self) -> None:
        item = JobItem({"item": 3, "seed": 2**53 - 1, "params": {"a": 1}})
        self.assertEqual((item.number, item.seed, item.params), (3, 2**53 - 1, {"a": 1}))
        self.assertIsNone(JobItem({"item": 0, "seed": 0}).params)
        self.assertEqual(item.rng().random(), item.rng().random())

    def test_anything_else_is_refused(self) -> None:
        good = {"item": 0, "seed": 0}
        bad = [None, 1, "item", [good], {}, {"item": 0}, {"seed": 0}]
        bad += [good | {"item": it} for it in (-1, 1.0, True, "0", None)]
        bad += [good | {"seed": it} for it in (-1, 2**53, 1.0, False, "0", None)]
        for params in bad:
            with self.subTest(params), self.assertRaises(BadParams):
                JobItem(params)


class TestRefusals(unittest.TestCase):
    def refusal(self, config: dict) -> tuple[str, str]:
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            with self.assertRaises(Refused) as caught:
                Host(Nameless, config)
        return str(caught.exception), printed.getvalue()

    def test_a_configuration_that_does_not_fit_is_refused_in_the_plugin_s_own_words(self) -> None:
        self.assertEqual(self.refusal({}), ("limit is missing", ""))

    def test_what_made_it_not_fit_is_printed_with_its_traceback(self) -> None:
        refused, printed = self.refusal({"limit": "?"})
        self.assertEqual(refused, "limit is none")
        self.assertIn('int("?")', printed)

    def test_a_plugin_without_a_name_has_the_manifest_s(self) -> None:
        with Host(Nameless, {"limit": 1}) as host:
            self.assertEqual(host.ready["name"], "Nameless")


if __name__ == "__main__":
    unittest.main()
