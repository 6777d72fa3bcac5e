"""The table of SSGLRP's paper on a VGG16: first the run, then ``python benchmarks/paper.py RUN``.

clarp evaluate ../shared/images/tiny20 --model ../shared/models/vgg16_tiny20.py:build --suite ssglrp-paper --out RUN

Prints the run's rows of each half apart, and of both, in Markdown. The halves are those of ``smoothing.py``: in the order of their
names, every second photo is the tune half's, beginning with the first. Nothing is chosen on either: suite and methods are given.
Ratios are those of means to LRP's, where the interval of LRP's mean lies above zero, beside the paper's. Differences are paired,
with bootstrap intervals, and sign-flip tests with Holm's correction over all comparisons of a half.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clarp.evaluation.statistics import Sampling, bootstrap, enough_flips, holm, sign_flip_test
from clarp.evaluation.store import Store
from clarp.evaluation.tables import RunTable

PAPER = {"lrp": "1", "slrp": "1.089", "sglrp": "1.326", "ssglrp": "1.770"}
REFERENCE = "ssglrp"
COLUMNS = {
    "patch-masking:size=9/drop@9": "drop, pixel",
    "patch-masking:size=9/odds@9": "log-odds, pixel",
    "patch-masking:size=9:centre=window/drop@9": "drop, window",
    "patch-masking:size=9:centre=window/odds@9": "log-odds, window",
    "pointing:smoothing=0.02/hit": "pointing game",
    "strict-pointing/hit@0.5": "strict, 0.5",
}
SIGNIFICANT = 0.05


def means(half: str, rows: RunTable) -> Iterator[str]:
    """A line for each method: means, and ratios to LRP's."""
    sampling = Sampling(rows.clusters)
    for k, method in enumerate(rows.methods):
        cells = []
        for column in COLUMNS:
            found = rows.values[column]
            lrp = found[:, [rows.methods.index("lrp")]]
            mean = np.nanmean(found[:, k])
            cell = f"{mean:.4f}" if "drop" in column else f"{mean:.3f}"
            if "hit" not in column and bootstrap(lrp, sampling)[0][0] > 0:
                cell += f" ({mean / np.nanmean(lrp):.2f})"
            cells.append(cell)
        yield f"| {half} | `{method}` | {PAPER.get(method, '')} | " + " | ".join(cells) + " |"


def differences(half: str, rows: RunTable) -> Iterator[str]:
    """A line for each other method: the reference minus it; bold where the corrected test rejects zero."""
    others = [k for k, method in enumerate(rows.methods) if method != REFERENCE]
    at = rows.methods.index(REFERENCE)
    compared = np.concatenate(
        [rows.values[column][:, [at]] - rows.values[column][:, others] for column in COLUMNS], axis=1
    )
    sampling, tests = Sampling(rows.clusters), compared.shape[1]
    low, high = bootstrap(compared, sampling)
    p = holm(sign_flip_test(compared, enough_flips(sampling, tests)))
    for place, k in enumerate(others):
        cells = []
        for n, column in enumerate(COLUMNS):
            j, digits = n * len(others) + place, 4 if "drop" in column else 3
            cell = f"{np.nanmean(compared[:, j]):+.{digits}f} [{low[j]:.{digits}f}, {high[j]:.{digits}f}]"
            cells.append(f"**{cell}**" if p[j] < SIGNIFICANT else cell)
        yield f"| {half} | `{rows.methods[k]}` | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    store = Store(parser.parse_args().run)
    rows = RunTable.of(store)
    # Rows lie picture by picture in the order of the data set, so a cluster's number is the photo's place.
    place = rows.clusters % 2
    halves = {
        f"{half}, {len(np.unique(rows.clusters[chosen]))} photos": rows.where(chosen)
        for half, chosen in (("test", place == 1), ("tune", place == 0), ("both", place >= 0))
    }
    if not store.complete:
        print(f"The run is not complete: {store.about()['samples']} photos belong to it.\n")
    heads, rule = " | ".join(COLUMNS.values()), "|---" * len(COLUMNS)
    print(f"| half | method | the paper's ratio | {heads} |\n|---|---|---{rule}|")
    print("\n".join(line for half, found in halves.items() for line in means(half, found)))
    print(f"\n| half | `{REFERENCE}` minus | {heads} |\n|---|---{rule}|")
    print("\n".join(line for half, found in halves.items() for line in differences(half, found)))


if __name__ == "__main__":
    main()
