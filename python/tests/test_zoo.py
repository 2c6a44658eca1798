"""The zoo is complete: an animal, its docstring and its manifest belong together."""

from __future__ import annotations

import ast
import tomllib
import unittest
from pathlib import Path

ZOO = Path(__file__).parents[1] / "zoo"


class Zoo(unittest.TestCase):
    def test_every_animal_has_its_manifest_and_every_manifest_its_animal(self) -> None:
        tree = ast.parse((ZOO / "animals.py").read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        animals = {node.name: node for node in functions if node.name != "born"}
        self.assertEqual(sorted(animals), sorted(path.stem for path in ZOO.glob("*.toml")))
        for name, animal in animals.items():
            manifest = tomllib.loads((ZOO / f"{name}.toml").read_text())
            self.assertEqual(manifest["plugin"]["name"], name)
            self.assertEqual(manifest["entry"]["sidecar"]["command"][-2:], ["animals.py", name])
            self.assertRegex(ast.get_docstring(animal) or "", r"`[a-z_]+`|No error", name)


if __name__ == "__main__":
    unittest.main()
