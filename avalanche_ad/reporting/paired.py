"""Differences to a reference strategy, paired over seeds, with a test of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from avalanche_ad.reporting.tables import UNDEFINED, Section, by_strategy, number

__all__ = [
    "MEASURES",
    "Interval",
    "PairedDifference",
    "holm",
    "interval",
    "paired_csv",
    "paired_difference",
    "paired_differences",
    "paired_section",
]

MEASURES = (
    ("image AUROC", "final", "image_auroc"),
    ("pixel AUROC", "final", "pixel_auroc"),
    ("image forgetting", "forgetting", "image_auroc"),
    ("pixel forgetting", "forgetting", "pixel_auroc"),
)
"""What is tested: heading, section and metric of ``results.json``."""
_SAME = 1e-9  # differences closer than this have no spread that a test could use


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two strategies over the seeds that both have.

    :param n: pairs.
    :param mean: of the differences; ``None`` for fewer than two pairs.
    :param low: lower end of the 95 % confidence interval of the mean by Student's t;
        ``None``, as ``p``, also when all differences are the same.
    :param high: upper end.
    :param p: of the two-sided paired t-test.
    :param p_holm: the same after :func:`holm`'s correction.

    >>> difference = paired_difference({0: 0.9, 1: 0.8}, {0: 0.7, 1: 0.7})
    >>> difference.n, round(difference.mean, 3)
    (2, 0.15)
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


def paired_difference(
    values: Mapping[int, float | None], reference: Mapping[int, float | None]
) -> PairedDifference:
    """Compare two strategies over the seeds that both have.

    :param values: seed → value of a strategy.
    :param reference: seed → value of the one to compare with.
    """
    pairs = [
        (value, reference[seed]) for seed, value in values.items() if seed in reference
    ]
    first = [value for value, _ in pairs if value is not None]
    second = [value for _, value in pairs if value is not None]
    if len(pairs) < 2 or not len(first) == len(second) == len(pairs):
        return PairedDifference(len(pairs))
    differences = [x - y for x, y in zip(first, second, strict=True)]
    middle = sum(differences) / len(differences)
    if max(differences) - min(differences) < _SAME:
        return PairedDifference(len(pairs), middle)
    test = stats.ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    return PairedDifference(
        len(pairs),
        middle,
        float(interval.low),
        float(interval.high),
        float(test.pvalue),
    )


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval by Student's t.

    :param mean: ``None`` where a value is undefined.
    :param low: lower end; ``None`` for fewer than two values.
    :param high: upper end.

    >>> interval([0.7, 0.8, 0.9]).text()
    '0.800 [0.552, 1.048]'
    """

    mean: float | None
    low: float | None = None
    high: float | None = None

    def text(self, digits: int = 3, sign: str = "") -> str:
        """Return it as tables show it, the interval in brackets."""
        middle = number(self.mean, digits, sign)
        if self.low is None:
            return middle
        ends = ", ".join(number(end, digits, sign) for end in (self.low, self.high))
        return f"{middle} [{ends}]"


def interval(values: Sequence[float | None]) -> Interval:
    """Return the mean of values over seeds with its confidence interval.

    :param values: one per seed.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Interval(None)
    middle = sum(known) / len(known)
    if len(known) < 2:
        return Interval(middle)
    spread = float(stats.sem(known))
    reach = float(stats.t.ppf(0.975, len(known) - 1)) * spread
    return Interval(middle, middle - reach, middle + reach)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for being several (Holm, 1979).

    The k-th smallest of m is multiplied by m − k + 1, is at least the one before and at
    most 1.

    :param values: p values; ``None`` stays and does not count.
    """
    order = sorted((p, index) for index, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (p, index) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        corrected[index] = least
    return corrected


def paired_differences(
    results: Sequence[Mapping[str, Any]], against: str
) -> dict[str, dict[str, PairedDifference]]:
    """Compare every strategy with one of them, in each of :data:`MEASURES`.

    The p values of a measure are corrected over the strategies.

    :param results: contents of ``results.json``.
    :param against: name of the reference.
    :return: strategy → heading of the measure → difference.
    """
    runs = by_strategy(results)
    others = [name for name in runs if name != against]
    table: dict[str, dict[str, PairedDifference]] = {name: {} for name in others}
    for title, section, metric in MEASURES:
        values = {
            name: {run["seed"]: run.get(section, {}).get(metric) for run in own}
            for name, own in runs.items()
        }
        found = [
            paired_difference(values[name], values.get(against, {})) for name in others
        ]
        corrected = holm([difference.p for difference in found])
        for name, difference, p in zip(others, found, corrected, strict=True):
            table[name][title] = replace(difference, p_holm=p)
    return table


def paired_section(
    table: Mapping[str, Mapping[str, PairedDifference]], against: str
) -> Section:
    """Return the differences as a table, a line per strategy.

    :param table: what :func:`paired_differences` returned.
    :param against: name of the reference.
    """
    tested = sum(
        any(difference.p is not None for difference in own.values())
        for own in table.values()
    )
    caption = (
        f"Difference to {against} over the n seeds that both have: mean "
        "[95 % confidence interval] and p of a two-sided paired t-test, "
        f"Holm-corrected over the {tested} tested. AUROC: positive = better "
        f"than {against}; forgetting: positive = forgets more. – : fewer than two "
        "seeds in common, undefined, or the same difference for every seed."
    )
    lines = []
    for name, differences in table.items():
        seeds = max(difference.n for difference in differences.values())
        cells = [_cell(differences[title]) for title, _, _ in MEASURES]
        lines.append([name, str(seeds), *cells])
    head = ["strategy", "n", *[title for title, _, _ in MEASURES]]
    return Section(f"Against {against}", caption, head, lines)


def _cell(difference: PairedDifference) -> str:
    if difference.mean is None:
        return UNDEFINED
    text = number(difference.mean, sign="+")
    if difference.p_holm is None:
        return f"{text} [{UNDEFINED}] p {UNDEFINED}"
    low, high = (number(x, sign="+") for x in (difference.low, difference.high))
    p = "< .001" if difference.p_holm < 0.001 else f"{difference.p_holm:.3f}"
    return f"{text} [{low}, {high}] p {p}"


def paired_csv(
    table: Mapping[str, Mapping[str, PairedDifference]], against: str
) -> str:
    """Return the differences as CSV: a line per strategy and measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("n", "mean", "low", "high", "p", "p_holm")
    writer.writerow(["strategy", "against", "measure", *names])
    for strategy, differences in table.items():
        for title, section, metric in MEASURES:
            values = [getattr(differences[title], name) for name in names]
            cells = ["" if value is None else value for value in values]
            writer.writerow([strategy, against, f"{section}.{metric}", *cells])
    return text.getvalue()
