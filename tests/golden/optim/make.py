"""Golden trajectories of the update rules: the weights that given gradients lead to.

    python make.py

torch.optim where it has the rule (float32, as it computes), else the published formula in float64
with numpy. trajectories.json holds the start and the gradients of a matrix (6, 6) and a vector (7),
and for each case the rule's settings in hone's words, the rate, the decay, and the weights after
the steps of CHECKED.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
STEPS = 12
CHECKED = (1, 2, 5, 12)
Array = NDArray[np.float64]
# Gradient, step from 1 -> the next weights.
Step = Callable[[Array, Array, int], Array]


@dataclass
class Problem:
    """A start and the gradients of all steps."""

    name: str
    start: Array
    gradients: list[Array]


def problems() -> list[Problem]:
    """A matrix and a vector; gradients shrink and have a mean, as in a descent."""
    draw = np.random.default_rng(2026)
    made = []
    for name, shape in (("matrix", (6, 6)), ("vector", (7,))):
        start = draw.normal(size=shape)
        mean = draw.normal(size=shape)
        gradients = [
            (draw.normal(size=shape) + 0.5 * mean) / (1 + 0.1 * step) for step in range(STEPS)
        ]
        # What the file says in seven digits is what everybody computes from.
        made.append(Problem(name, rounded(start), [rounded(g) for g in gradients]))
    return made


def rounded(values: Array) -> Array:
    """As float32."""
    return values.astype(np.float32).astype(np.float64)


def run_torch(problem: Problem, make: Callable[[list[torch.Tensor]], Any]) -> list[Array]:
    """The weights after each step of a torch optimizer."""
    weights = torch.tensor(problem.start, dtype=torch.float32, requires_grad=True)
    optimizer = make([weights])
    out = []
    for gradient in problem.gradients:
        weights.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
        out.append(weights.detach().numpy().astype(np.float64).copy())
    return out


def run_formula(problem: Problem, step: Step) -> list[Array]:
    """The weights after each step of a formula."""
    weights = problem.start.copy()
    out = []
    for number, gradient in enumerate(problem.gradients, start=1):
        weights = step(weights, gradient, number)
        out.append(weights.copy())
    return out


def lion(rate: float, decay: float, beta1: float, beta2: float) -> Step:
    """Chen et al. 2023, program 1."""
    return lion_k(np.sign, rate, decay, beta1, beta2)


def lion_k(
    slope: Callable[[Array], Array], rate: float, decay: float, beta1: float, beta2: float
) -> Step:
    """Chen et al. 2024, eq. 4, with the momentum's sign turned round."""
    momentum: Array = np.zeros(1)

    def step(weights: Array, gradient: Array, _number: int) -> Array:
        nonlocal momentum
        inner = beta1 * momentum + (1 - beta1) * gradient
        momentum = beta2 * momentum + (1 - beta2) * gradient
        return weights - rate * (slope(inner) + decay * weights)

    return step


def muon(rate: float, decay: float, momentum: float) -> Step:
    """Jordan et al. 2024, in float64 (torch.optim.Muon iterates in bfloat16)."""
    buffer: Array = np.zeros(1)

    def step(weights: Array, gradient: Array, _number: int) -> Array:
        nonlocal buffer
        buffer = momentum * buffer + (1 - momentum) * gradient
        x = (1 - momentum) * gradient + momentum * buffer
        x = x / np.linalg.norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        rows, columns = x.shape
        return weights * (1 - rate * decay) - rate * np.sqrt(max(1, rows / columns)) * x

    return step


def shampoo(rate: float) -> Step:
    """Gupta et al. 2018, algorithm 1, epsilon 0 (the first gradient has full rank)."""
    left: Array = np.zeros((6, 6))
    right: Array = np.zeros((6, 6))

    def root(matrix: Array) -> Array:
        values, vectors = np.linalg.eigh(matrix)
        return (vectors * values**-0.25) @ vectors.T

    def step(weights: Array, gradient: Array, _number: int) -> Array:
        nonlocal left, right
        left = left + gradient @ gradient.T
        right = right + gradient.T @ gradient
        return weights - rate * root(left) @ gradient @ root(right)

    return step


def soap(rate: float, decay: float, beta1: float, beta2: float, every: int) -> Step:
    """Vyas et al. 2024, algorithms 3 and 4; the first gradient only makes the bases."""
    state: dict[str, Array] = {}

    def renewed(matrix: Array, basis: Array) -> tuple[Array, NDArray[np.int64]]:
        order = np.argsort(-np.diag(basis.T @ matrix @ basis), kind="stable")
        return np.linalg.qr(matrix @ basis[:, order])[0], order

    def mix_sides(gradient: Array, keep: float) -> None:
        state["left"] = keep * state["left"] + (1 - keep) * gradient @ gradient.T
        state["right"] = keep * state["right"] + (1 - keep) * gradient.T @ gradient

    def step(weights: Array, gradient: Array, number: int) -> Array:
        if number == 1:
            zeros = np.zeros((6, 6))
            state.update(mean=zeros, second=zeros, left=zeros, right=zeros)
            mix_sides(gradient, beta2)
            state["ql"] = np.linalg.eigh(state["left"])[1][:, ::-1]
            state["qr"] = np.linalg.eigh(state["right"])[1][:, ::-1]
            return weights
        steps = number - 1
        ql, qr = state["ql"], state["qr"]
        state["mean"] = beta1 * state["mean"] + (1 - beta1) * gradient
        inside = ql.T @ gradient @ qr
        state["second"] = beta2 * state["second"] + (1 - beta2) * inside**2
        change = (ql.T @ state["mean"] @ qr) / (np.sqrt(state["second"]) + 1e-8)
        change = ql @ change @ qr.T * np.sqrt(1 - beta2**steps) / (1 - beta1**steps)
        mix_sides(gradient, beta2)
        if steps % every == 0:
            state["ql"], rows = renewed(state["left"], ql)
            state["qr"], columns = renewed(state["right"], qr)
            state["second"] = state["second"][rows][:, columns]
        return weights * (1 - rate * decay) - rate * change

    return step


@dataclass
class Case:
    """One rule with settings, and how the reference computes it."""

    name: str
    rule: str
    settings: str
    rate: float
    decay: float
    problem: str  # or "both"
    torch_make: Callable[[list[torch.Tensor]], Any] | None = None
    formula: Callable[[], Step] | None = None
    low_precision: bool = False  # the reference itself computes in bfloat16


def cases() -> list[Case]:
    """All of them."""
    sgd, adamw, adafactor = torch.optim.SGD, torch.optim.AdamW, torch.optim.Adafactor
    lions = {"rate": 0.02, "decay": 0.3, "beta1": 0.9, "beta2": 0.99}

    def k(slope: Callable[[Array], Array]) -> Callable[[], Step]:
        return lambda: lion_k(slope, **lions)

    def lp(u: Array) -> Array:
        norm = np.sum(np.abs(u) ** 1.5) ** (1 / 1.5)
        return u.size ** (1 / 3) * np.sign(u) * (np.abs(u) / norm) ** 0.5

    return [
        Case("sgd", "sgd", "momentum=0", 0.1, 0.0, "both", lambda w: sgd(w, lr=0.1)),
        Case(
            "sgd momentum",
            "sgd",
            "decay=coupled",
            0.05,
            0.2,
            "both",
            lambda w: sgd(w, lr=0.05, momentum=0.9, weight_decay=0.2),
        ),
        Case(
            "sgd nesterov",
            "sgd",
            "nesterov=yes,momentum=0.8",
            0.05,
            0.0,
            "both",
            lambda w: sgd(w, lr=0.05, momentum=0.8, nesterov=True),
        ),
        Case(
            "adamw", "adamw", "", 0.01, 0.1, "both", lambda w: adamw(w, lr=0.01, weight_decay=0.1)
        ),
        Case(
            "adamw betas",
            "adamw",
            "beta1=0.8,beta2=0.95,epsilon=1e-3",
            0.02,
            0.0,
            "both",
            lambda w: adamw(w, lr=0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.0),
        ),
        Case(
            "adafactor",
            "adafactor",
            "",
            0.1,
            0.05,
            "both",
            lambda w: adafactor(w, lr=0.1, weight_decay=0.05),
        ),
        Case(
            "adafactor clip",
            "adafactor",
            "clip=1.5,beta2_decay=-0.5",
            0.3,
            0.0,
            "both",
            lambda w: adafactor(w, lr=0.3, d=1.5, beta2_decay=-0.5),
        ),
        Case("lion", "lion", "", 0.02, 0.3, "both", None, lambda: lion(**lions)),
        Case(
            "lion language",
            "lion",
            "beta1=0.95,beta2=0.98",
            0.02,
            0.0,
            "both",
            None,
            lambda: lion(0.02, 0.0, 0.95, 0.98),
        ),
        Case(
            "lion_k l2",
            "lion_k",
            "kappa=l2",
            0.02,
            0.3,
            "both",
            None,
            k(lambda u: np.sqrt(u.size) * u / np.linalg.norm(u)),
        ),
        Case("lion_k lp", "lion_k", "kappa=lp,p=1.5", 0.02, 0.3, "both", None, k(lp)),
        Case(
            "lion_k huber",
            "lion_k",
            "kappa=huber,e=0.2",
            0.02,
            0.3,
            "both",
            None,
            k(lambda u: np.clip(u / 0.2, -1, 1)),
        ),
        Case(
            "lion_k sqrt",
            "lion_k",
            "kappa=sqrt,e=0.2",
            0.02,
            0.3,
            "both",
            None,
            k(lambda u: u / np.sqrt(u * u + 0.04)),
        ),
        Case(
            "lion_k truncated",
            "lion_k",
            "kappa=truncated-l1,e=0.05",
            0.02,
            0.3,
            "both",
            None,
            k(lambda u: np.where(np.abs(u) > 0.05, np.sign(u), 0.0)),
        ),
        Case(
            "lion_k group",
            "lion_k",
            "kappa=group,size=plain",
            0.02,
            0.3,
            "matrix",
            None,
            k(lambda u: u / np.linalg.norm(u, axis=1, keepdims=True)),
        ),
        Case(
            "muon",
            "muon",
            "scale=original",
            0.05,
            0.1,
            "matrix",
            None,
            lambda: muon(0.05, 0.1, 0.95),
        ),
        Case(
            "muon torch",
            "muon",
            "scale=original",
            0.05,
            0.1,
            "matrix",
            lambda w: torch.optim.Muon(w, lr=0.05, weight_decay=0.1),
            None,
            True,
        ),
        Case(
            "muon vector",
            "muon",
            "",
            0.01,
            0.1,
            "vector",
            lambda w: adamw(w, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
        ),
        Case(
            "shampoo",
            "shampoo",
            "beta1=0,accumulate=sum,graft=none,epsilon=0,every=1",
            0.1,
            0.0,
            "matrix",
            None,
            lambda: shampoo(0.1),
        ),
        Case(
            "soap",
            "soap",
            "every=2",
            0.02,
            0.1,
            "matrix",
            None,
            lambda: soap(0.02, 0.1, 0.95, 0.95, 2),
        ),
    ]


def listed(values: Array) -> list[float]:
    """Nine digits are a float32 to the bit."""
    return [float(f"{value:.9g}") for value in values.ravel()]


def main() -> None:
    """Writes trajectories.json."""
    known = problems()
    out: dict[str, Any] = {"torch": torch.__version__.split("+")[0], "problems": {}, "cases": []}
    for problem in known:
        shape = problem.start.shape
        out["problems"][problem.name] = {
            "rows": shape[0] if len(shape) == 2 else 1,
            "columns": shape[-1],
            "start": listed(problem.start),
            "gradients": [listed(g) for g in problem.gradients],
        }
    for case in cases():
        for problem in known:
            if case.problem not in ("both", problem.name):
                continue
            if case.torch_make is not None:
                weights = run_torch(problem, case.torch_make)
            else:
                assert case.formula is not None
                weights = run_formula(problem, case.formula())
            out["cases"].append(
                {
                    "name": case.name,
                    "rule": case.rule,
                    "settings": case.settings,
                    "rate": case.rate,
                    "decay": case.decay,
                    "problem": problem.name,
                    "low_precision": case.low_precision,
                    "weights": {str(n): listed(weights[n - 1]) for n in CHECKED},
                }
            )
    text = json.dumps(out, separators=(",", ":")).replace('{"name"', '\n{"name"')
    (HERE / "trajectories.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
