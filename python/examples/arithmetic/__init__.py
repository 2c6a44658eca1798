"""Sums and products with a score for answers, as reasoning-gym's datasets have them, and a pupil who
slips now and then."""

from random import Random
from typing import Any


class Arithmetic:
    """As many questions as asked for; each is a function of the seed and its index."""

    def __init__(self, size: int = 500, seed: int = 0) -> None:
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        rng = Random(f"{self.seed}/{index}")
        a, b, sign = rng.randint(2, 99), rng.randint(2, 99), rng.choice("+-*")
        answer = {"+": a + b, "-": a - b, "*": a * b}[sign]
        return {
            "question": f"What is {a} {sign} {b}?",
            "answer": str(answer),
            "metadata": {"index": index, "a": a, "b": b, "sign": sign},
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        """1 for the number, 0.5 for one that is at most a tenth off, else 0."""
        wanted = int(entry["answer"])
        try:
            number = int(answer or "")
        except ValueError:
            return 0.0
        if number == wanted:
            return 1.0
        return 0.5 if abs(number - wanted) * 10 <= abs(wanted) else 0.0


def pupil(question: str, entry: dict[str, Any], rng: Random, slips: float = 0.2) -> str:
    """Reckons as the question says, and is one or ten off in a share of the answers."""
    a, sign, b = question.removeprefix("What is ").removesuffix("?").split()
    answer = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[sign](int(a), int(b))
    if rng.random() < slips:
        answer += rng.choice((-10, -1, 1, 10))
    return str(answer)
