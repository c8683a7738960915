"""Recommendations from Parquet to Parquet against single requests."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model import cli
from glintru_model.errors import InputError
from glintru_model.serving import batch
from glintru_model.serving.batch import recommend_file
from glintru_model.serving.recommender import Recommender

HISTORIES = {7: [100, 101, 5], 3: [129] * 20, 5: [1, 2], 9: [104, 100, 104], 4: list(range(100, 130)), 6: []}


@pytest.fixture(scope="module")
def recommender(glintru_dir):
    return Recommender.load(glintru_dir)


def as_log(histories):
    """Events of all users mixed, two of each user at the same time: their order in the log decides."""
    rows = [(user, item, time // 2) for user, items in histories.items() for time, item in enumerate(items)]
    rows.sort(key=lambda row: (row[2] % 3, row[0]))  # stable: neither by user nor by time
    users, items, times = zip(*rows, strict=True)
    return pa.table({"user_id": users, "item_id": items, "timestamp": times})


@pytest.mark.parametrize("form", ["histories", "log"])
def test_answers_are_those_of_single_requests(recommender, form, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "_USERS_AT_ONCE", 2)
    histories = HISTORIES if form == "histories" else {user: items for user, items in HISTORIES.items() if items}
    table = as_log(histories)
    if form == "histories":
        table = pa.table({"history": list(histories.values()), "user_id": list(histories)})
    source = tmp_path / "in[1].parquet"  # a name, no pattern that in1.parquet matches
    pq.write_table(table, source)
    pq.write_table(as_log({1: [1]}), tmp_path / "in1.parquet")
    assert recommend_file(recommender, source, tmp_path / "to" / "out.parquet", k=4) == len(histories)
    answers = pq.read_table(tmp_path / "to" / "out.parquet").to_pylist()
    users = list(histories) if form == "histories" else sorted(histories)
    assert [answer.pop("user_id") for answer in answers] == users
    expected = recommender.recommend([histories[user] for user in users], 4)
    for answer, wanted in zip(answers, expected, strict=True):
        assert {**answer, "scores": pytest.approx(answer["scores"], abs=1e-5)} == vars(wanted)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["out.parquet"]
    out = capsys.readouterr().out
    assert f"recommend: {len(histories)}/{len(histories)} users" in out
    assert "/s" in out


def test_text_ids_and_seen_items(sasrec_dir, tmp_path):
    pq.write_table(pa.table({"user_id": ["u"], "history": [["B001", "?", None]]}), tmp_path / "in.parquet")
    recommender = Recommender.load(sasrec_dir)
    recommend_file(recommender, tmp_path / "in.parquet", tmp_path / "out.parquet", k=30, filter_seen=False)
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (len(row["item_ids"]), row["num_unknown_items"]) == (30, 2)
    assert "B001" in row["item_ids"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"user": [1]}), r"columns user; expected user_id, history or user_id, item_id, timestamp"),
        (pa.table({"user_id": [1], "history": [3]}), "column 'history' is int64, expected a list"),
        (pa.table({"user_id": [1], "history": [["x"]]}), "item ids in the file are string, .* are whole numbers"),
        (pa.table({"user_id": [1], "history": [[1.5]]}), "item ids in the file are double"),
        (pa.table({"user_id": pa.array([], pa.int64()), "history": pa.array([], pa.list_(pa.int64()))}), "no user"),
    ],
)
def test_files_that_cannot_be_used_leave_nothing(recommender, table, message, tmp_path):
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputError, match=message):
        recommend_file(recommender, tmp_path / "in.parquet", tmp_path / "out.parquet", k=3)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_text_ids_are_read_in_whatever_form_a_writer_gave_them(sasrec_dir, tmp_path):
    recommender, found = Recommender.load(sasrec_dir), []
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        ids = pa.array(["B001", "B002", "?"]).cast(kind)
        history = pa.LargeListArray.from_arrays(pa.array([0, 3], pa.int64()), ids)
        pq.write_table(pa.table({"user_id": [1], "history": history}), tmp_path / "in.parquet")
        recommend_file(recommender, tmp_path / "in.parquet", tmp_path / "out.parquet", k=3)
        found.append(pq.read_table(tmp_path / "out.parquet").to_pylist())
    assert found[0][0]["num_unknown_items"] == 1
    assert all(rows == found[0] for rows in found)


def test_damaged_input_is_named_and_never_overwritten(recommender, tmp_path):
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = pa.table({"user_id": range(5000), "history": [[100 + i % 30, 101] for i in range(5000)]})
    pq.write_table(table, source, compression="zstd")
    content = source.read_bytes()
    with pytest.raises(InputError, match="is the input itself"):
        recommend_file(recommender, source, tmp_path / "." / "in.parquet", k=3)
    assert source.read_bytes() == content
    source.write_bytes(content[:20] + bytes(2000) + content[2020:])
    with pytest.raises(InputError, match=r"in\.parquet: damaged: "):
        recommend_file(recommender, source, output, k=3)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def run(*arguments):
    return cli.main(["recommend", *map(str, arguments)])


def test_command_line(glintru_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pq.write_table(pa.table({"user_id": [1], "history": [[100]]}), tmp_path / "in.parquet")
    files = ("--input", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet")
    assert run("--trained", glintru_dir, *files, "--k", 3) == 0
    assert len(pq.read_table(tmp_path / "out.parquet").column("item_ids")[0]) == 3
    capsys.readouterr()
    for arguments, code, message in (
        (("--trained", glintru_dir, *files, "--k", 31), 2, "error: k 31, allowed: 1..30 (the size of the catalogue)"),
        (("--trained", glintru_dir, *files, "--k", -1), 2, "error: k -1, allowed"),
        (("--trained", tmp_path / "none", *files), 2, "none/config.json: cannot read"),
        (("--trained", glintru_dir, "--input", tmp_path / "no", "--output", tmp_path / "x"), 2, "no: cannot read"),
        (("--trained", "models:/glintru@champion", *files, "--runs-dir", tmp_path), 2, "no run has been tracked here"),
    ):
        assert run(*arguments) == code
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
