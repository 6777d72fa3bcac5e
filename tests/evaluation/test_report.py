"""The report's numbers against plain loops over the rows, and its files."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from clarp.cli import main
from clarp.evaluation.findings import Findings
from clarp.evaluation.statistics import Sampling, bootstrap, holm, sign_flip_test
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import latex, markdown, write
from clarp.files import write_summed

arrow = pytest.importorskip("pyarrow")


def put(store, table):
    """Other rows, as a run writes them."""
    write_summed(store.folder / "rows.parquet", lambda file: arrow.parquet.write_table(table, file))


METHODS = ("lrp", "ssglrp", "random")
COLUMNS = {
    "patch-masking:size=5+9/drop@5": "higher",
    "patch-masking:size=5+9/drop@9": "higher",
    "patch-masking:size=5+9/before": "none",
    "deletion/auc": "lower",
}


def rows(count=60, pictures=40):
    """Two labels in some pictures; ssglrp is better; some drops were not asked."""
    generator = np.random.default_rng(5)
    found = []
    for unit in range(count):
        picture = unit * pictures // count
        noise = generator.normal(0, 0.05)
        for number, method in enumerate(METHODS):
            drop = noise + [0.10, 0.16, -0.01][number] + generator.normal(0, 0.01)
            found.append(
                {
                    "id": f"{picture}.jpg",
                    "label": str(unit % 3),
                    "method": method,
                    "sample": picture,
                    "class": unit % 3,
                    "target": unit % 3,
                    "predicted": 0,
                    "probability": 0.9,
                    "difficult": unit % 4 == 0,
                    "patch-masking:size=5+9/drop@5": math.nan if unit == 7 else drop,
                    "patch-masking:size=5+9/drop@9": 2 * drop,
                    "patch-masking:size=5+9/before": 0.9,
                    "deletion/auc": 0.5 - drop,
                }
            )
    return found


@pytest.fixture
def store(tmp_path):
    """A folder as a run leaves it."""
    store = Store(tmp_path / "run")
    about = {
        "samples": 40,
        "dataset": "toys: 40 samples",
        "model": "/somewhere/toy.py:build",
        "classes": ["ant", "bee_fly", "cow"],
        "columns": COLUMNS,
    }
    with store.locked():
        store.begin({"methods": dict.fromkeys(METHODS, "")}, about)
        table = arrow.Table.from_pylist(rows())
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        store.write_part(0, 40, columns, table.schema, [])
        store.merge([(0, 40)], [])
    return store


@pytest.fixture
def report(store):
    return Report.of(store, "ssglrp", resamples=999)


def column_of(method, column, keep=lambda row: True):
    return [row[column] for row in rows() if row["method"] == method and keep(row)]


def line(report, column, method, subset="all"):
    (found,) = [x for x in report.lines if (x.column, x.method, x.subset) == (column, method, subset)]
    return found


class TestNumbers:
    def test_means_counts_and_ratios(self, report):
        drop = "patch-masking:size=5+9/drop@5"
        for method in METHODS:
            values = [value for value in column_of(method, drop) if not math.isnan(value)]
            found = line(report, drop, method)
            assert (found.n, found.absent) == (59, 1)
            assert found.value.mean == pytest.approx(sum(values) / 59)
            assert found.value.low < found.value.mean < found.value.high
        lrp, ours = line(report, drop, "lrp"), line(report, drop, "ssglrp")
        assert lrp.value.low > 0
        assert ours.ratio == pytest.approx(ours.value.mean / lrp.value.mean)
        assert lrp.ratio == 1.0
        assert math.isnan(line(report, "deletion/auc", "ssglrp").ratio)

    def test_no_ratio_where_lrps_interval_reaches_zero(self, store):
        table = store.rows()
        name = "patch-masking:size=5+9/drop@9"
        shifted = [
            value - 0.2 if method == "lrp" else value
            for value, method in zip(
                table.column(name).to_pylist(), table.column("method").to_pylist(), strict=True
            )
        ]
        table = table.set_column(table.column_names.index(name), name, arrow.array(shifted))
        put(store, table)
        found = Report.of(store, "ssglrp", resamples=999)
        assert line(found, name, "lrp").value.low < 0 < line(found, name, "lrp").value.high
        assert all(math.isnan(line(found, name, method).ratio) for method in METHODS)

    def test_intervals_are_of_pictures_and_differences_are_paired(self, report):
        name = "patch-masking:size=5+9/drop@5"
        pictures = np.array([row["sample"] for row in rows() if row["method"] == "lrp"])
        sampling = Sampling(pictures, 999, 0)
        ours, other = (np.array(column_of(method, name))[:, None] for method in ("ssglrp", "random"))
        found = line(report, name, "random")
        low, high = bootstrap(other, sampling)
        assert (found.value.low, found.value.high) == pytest.approx((low[0], high[0]))
        low, high = bootstrap(ours - other, sampling)
        assert found.difference.mean == pytest.approx(np.nanmean(ours - other))
        assert (found.difference.low, found.difference.high) == pytest.approx((low[0], high[0]))
        assert high[0] - low[0] < 0.5 * (found.value.high - found.value.low)
        assert found.p == sign_flip_test(ours - other, sampling)[0] == 1 / 1000

    def test_every_test_of_the_report_is_in_the_correction(self, report):
        tests = [x for x in report.lines if not math.isnan(x.p)]
        assert len(tests) == 2 * 3 * 2  # methods beside the reference, columns with a direction, subsets
        expected = holm([x.p for x in report.lines])
        assert [x.p_holm for x in report.lines] == pytest.approx(expected.tolist(), nan_ok=True)
        assert max(x.p_holm for x in tests) > max(x.p for x in tests)
        own = line(report, "deletion/auc", "ssglrp")
        assert math.isnan(own.p_holm)
        assert math.isnan(own.difference.mean)

    def test_few_flips_are_made_enough_for_all_tests(self, store):
        # 12 tests; with 99 flips Holm would let none be below 0.12.
        found = Report.of(store, "ssglrp", resamples=99)
        assert line(found, "deletion/auc", "random").p == 1 / (1 + 40 * 12)
        assert line(found, "deletion/auc", "random").p_holm < 0.05

    def test_classes_and_subsets(self, report):
        name = "deletion/auc"
        found = line(report, name, "lrp", "difficult")
        values = column_of("lrp", name, lambda row: row["difficult"])
        assert found.n == len(values) == 15
        assert found.value.mean == pytest.approx(np.mean(values))
        per_class = [np.mean(column_of("lrp", name, lambda row, k=k: row["class"] == k)) for k in range(3)]
        whole = line(report, name, "lrp").classes
        assert whole.mean == pytest.approx(np.mean(per_class))
        assert whole.low < whole.mean < whole.high
        assert math.isnan(found.classes.low)  # five in a class are too few to resample
        lines = [x for x in report.classes if x.column == name]
        assert [(x.index, x.name, x.n) for x in lines] == [(0, "ant", 20), (1, "bee_fly", 20), (2, "cow", 20)]
        assert [x.values["lrp"] for x in lines] == pytest.approx(per_class)

    def test_rows_that_do_not_count_make_no_class(self, store):
        """Class 1 has twenty units, of which two count: too few to resample; with none it is no class."""
        name, table = "deletion/auc", store.rows()
        classes, values = table.column("class").to_pylist(), table.column(name).to_pylist()
        of_one = [place for place, index in enumerate(classes) if index == 1]
        for kept in (6, 0):  # rows of three methods
            asked = list(values)
            for place in of_one[kept:]:
                asked[place] = math.nan
            changed = table.set_column(table.column_names.index(name), name, arrow.array(asked))
            put(store, changed)
            found = Report.of(store, "ssglrp", resamples=99)
            whole = line(found, name, "lrp").classes
            per_class = [
                np.nanmean([v for v, k in zip(asked[::3], classes[::3], strict=True) if k == index])
                for index in ((0, 1, 2) if kept else (0, 2))
            ]
            assert whole.mean == pytest.approx(np.mean(per_class))
            assert math.isnan(whole.low) == bool(kept)
            assert [x.n for x in found.classes if x.column == name] == [20, kept // 3, 20]
            other = "patch-masking:size=5+9/drop@9"  # a column of which all rows count keeps its interval
            assert line(found, other, "lrp").classes.low < line(found, other, "lrp").classes.mean

    def test_pictures_without_a_label_are_no_class(self, store):
        name, table = "deletion/auc", store.rows()
        classes = [-1 if index == 1 else index for index in table.column("class").to_pylist()]
        place = table.column_names.index("class")
        changed = table.set_column(place, "class", arrow.array(classes, arrow.int64()))
        put(store, changed)
        found = Report.of(store, "ssglrp", resamples=99)
        per_class = [np.mean(column_of("lrp", name, lambda row, k=k: row["class"] == k)) for k in (0, 2)]
        assert line(found, name, "lrp").classes.mean == pytest.approx(np.mean(per_class))
        assert line(found, name, "lrp").n == 60
        assert [x.index for x in found.classes if x.column == name] == [0, 2]

    def test_curves(self, report):
        (curve,) = report.curves
        assert curve.name == "patch-masking:size=5+9/drop"
        assert curve.at == (5.0, 9.0)
        expected = [np.nanmean(column_of("lrp", f"{curve.name}@{size}")) for size in (5, 9)]
        assert curve.values["lrp"] == pytest.approx(expected)

    def test_the_same_run_gives_the_same_report(self, store, report):
        assert repr(Report.of(store, "ssglrp", resamples=999)) == repr(report)

    def test_rows_in_another_order_are_not_taken_for_anothers(self, store):
        table = store.rows()
        name, place = table.column("method"), table.column_names.index("method")
        put(store, table.set_column(place, "method", name[::-1]))
        with pytest.raises(ValueError, match="not those of the methods lrp, ssglrp, random in this order"):
            Report.of(store, "ssglrp")
        put(store, table.slice(0, 100))
        with pytest.raises(ValueError, match="not those of the methods"):
            Report.of(store, "ssglrp")

    def test_few_pictures_have_means_and_no_intervals_or_ratios(self, store):
        table = store.rows()
        for count, known in ((5, False), (6, True)):
            few = [sample < count for sample in table.column("sample").to_pylist()]
            put(store, table.filter(arrow.array(few)))
            found = line(Report.of(store, "ssglrp", resamples=199), "patch-masking:size=5+9/drop@9", "lrp")
            assert math.isfinite(found.value.mean)
            assert math.isfinite(found.difference.mean)
            ends = (found.value.low, found.value.high, found.difference.low, found.difference.high)
            assert [math.isfinite(end) for end in (*ends, found.ratio)] == [known] * 5

    def test_an_unknown_reference(self, store):
        with pytest.raises(ValueError, match="no method 'lpr', expected one of lrp, ssglrp, random"):
            Report.of(store, "lpr")


class TestFiles:
    def test_they_are_all_there_and_whole(self, store, report, tmp_path):
        written = write(report, tmp_path / "report", Findings.of(store))
        assert [path.name for path in written] == [
            "summary.csv",
            "summary.md",
            "summary.tex",
            "classes.csv",
            "findings.json",
            "patch-masking-size=5+9-drop.png",
        ]
        with Image.open(written[-1]) as picture:
            assert picture.width >= 600
        with written[0].open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(report.lines) == 18
        found = line(report, lines[0]["column"], lines[0]["method"])
        assert float(lines[0]["value"]) == found.value.mean
        assert float(lines[0]["value_low"]) == found.value.low
        assert {row["difference"] for row in lines if row["method"] == "ssglrp"} == {""}
        with written[3].open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 9

    def test_markdown(self, report):
        text = markdown(report)
        assert "40 pictures of toys: 40 samples; model toy.py:build." in text
        tables = [block for block in text.split("\n\n") if block.startswith("| method")]
        assert len(tables) == 6
        widths = {row.count("|") for table in tables for row in table.splitlines()}
        assert widths == {8}
        ours = line(report, "patch-masking:size=5+9/drop@5", "ssglrp")
        assert f"| ssglrp | 59 (+1 not asked) | {ours.value.mean:.4f} [" in tables[0]
        assert f"| {ours.ratio:.3f} | – | – |" in tables[0]

    def test_latex(self, report):
        text = latex(report)
        assert text.count(r"\begin{tabular}{lrrrrrr}") == text.count(r"\end{tabular}") == 6
        body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        assert r"[95 \%]" in body
        assert "–" not in body
        for row in body.splitlines():
            if row.endswith(r"\\"):
                assert row.count(" & ") == 6

    def test_the_command(self, store, capsys):
        with pytest.raises(SystemExit) as ending:
            main(["report", str(store.folder), "--resamples", "200", "--reference", "lrp"])
        assert ending.value.code in (0, None)
        said = capsys.readouterr().out
        assert "deletion/auc, lower is better, difficult subset" in said
        assert "lrp minus it [95 %]" in said
        assert (store.folder / "report" / "summary.tex").is_file()

    def test_a_run_that_is_not_complete_says_so(self, store, capsys):
        (store.folder / "rows.parquet").unlink()
        (store.folder / "problems.json").unlink()
        with pytest.raises(SystemExit):
            main(["report", str(store.folder), "--resamples", "200"])
        assert "The run is not complete" in capsys.readouterr().out

    def test_a_folder_that_has_none(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as ending:
            main(["report", str(tmp_path)])
        assert ending.value.code == 2
        assert "no run.json" in capsys.readouterr().err
