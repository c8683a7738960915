"""Every form that a log comes in gives the same interactions; what is no log is refused by name."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = [("u1", "i2", 30, 4.0), ("u2", "i1", 10, 5.0), ("u1", "i1", 20, 1.0)]
NAMES = ("user_id", "item_id", "timestamp", "rating")
EXPECTED = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def lines(delimiter, header=NAMES, rows=ROWS):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in ([header] if header else []) + list(rows))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = pa.compress(content, "zstd", asbytes=True)
    path.write_bytes(content)
    return path


def parquet(path: Path, rows=ROWS, names=NAMES, **types) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [pa.array(column, types.get(name)) for name, column in zip(names, zip(*rows, strict=True), strict=True)]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    return path


FORMS = {
    "log.csv": lines(","),
    "log.csv.gz": lines(","),
    "LOG.CSV": lines(","),
    "log.tsv": lines("\t"),
    "log.tsv.gz": lines("\t"),
    "log.csv.zst": lines(","),
    "log.inter": lines("\t", ("user_id:token", "item_id:token", "timestamp:float", "rating:float")),
    "log.jsonl": "".join(json.dumps(row) + "\n" for row in EXPECTED),
    "log.json.gz": "".join(json.dumps(row) + "\n" for row in EXPECTED),
    "log.jsonl.zst": "".join(json.dumps(row) + "\n" for row in EXPECTED),
    "bom.csv": "\ufeff" + lines(","),
    "crlf.csv": lines(",").replace("\n", "\r\n"),
    "quoted.csv": lines(",").replace("u1", '"u1"').replace("i2", '"i2"'),
    "no-final-newline.csv": lines(",").rstrip("\n"),
}


@pytest.mark.parametrize("name", FORMS)
def test_text_forms(tmp_path, ingested, name):
    rows, report = ingested(write(tmp_path / name, FORMS[name]))
    assert rows == EXPECTED
    assert report["columns"] == {"user_id": "string", "item_id": "string", "timestamp": "int64", "rating": "float64"}


def test_parquet_file(tmp_path, ingested):
    assert ingested(parquet(tmp_path / "log.parquet"))[0] == EXPECTED


def test_parquet_folder_is_read_by_name_without_markers(tmp_path, ingested):
    parquet(tmp_path / "log" / "b" / "part-0.parquet", ROWS[2:])
    parquet(tmp_path / "log" / "a" / "part-1.parquet", ROWS[1:2])
    parquet(tmp_path / "log" / "a" / "part-0.parquet", ROWS[:1])
    for name in ("_SUCCESS", ".part-0.parquet.crc", "_temporary/part-9.parquet"):
        write(tmp_path / "log" / name, "no data")
    assert ingested(tmp_path / "log")[0] == EXPECTED


def test_glob(tmp_path, ingested):
    write(tmp_path / "logs" / "2024-01.csv", lines(",", rows=ROWS[:2]))
    write(tmp_path / "logs" / "2024-02.csv", lines(",", rows=ROWS[2:]))
    write(tmp_path / "logs" / "2023-12.csv", lines(",", rows=[("x", "x", 1, 1)]))
    assert ingested(tmp_path / "logs" / "2024-*.csv")[0] == EXPECTED


def test_the_log_keeps_its_order_over_many_rows_and_files(tmp_path, ingested):
    for part in range(3):
        rows = [(f"u{row % 997}", f"i{row % 89}", part) for row in range(150_000)]
        parquet(tmp_path / "log" / f"{part}.parquet", rows, NAMES[:3])
    found, report = ingested(tmp_path / "log")
    assert report["counts"]["num_interactions"] == 450_000
    expected = [(f"u{row % 997}", f"i{row % 89}", part) for part in range(3) for row in range(150_000)]
    assert [tuple(row.values()) for row in found] == expected


def test_format_and_columns_are_settings(tmp_path, ingested):
    path = write(tmp_path / "export.txt", lines(",", ("who", "what", "when", "note, no rating"[:4])))
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    rows, _ = ingested(path, format="csv", columns=columns)
    assert rows == [{name: row[name] for name in NAMES[:3]} for row in EXPECTED]


@pytest.mark.parametrize("names", [("a b", 'quo"te', "sel;ect.", "rating"), ("USER_ID", "user id", "file", "rating")])
def test_any_column_name_works(tmp_path, ingested, names):
    columns = dict(zip(NAMES[:3], names[:3], strict=True))
    assert ingested(parquet(tmp_path / "log.parquet", names=names), columns=columns)[0] == EXPECTED


def test_columns_that_are_not_asked_for_may_repeat(tmp_path, ingested):
    path = write(tmp_path / "log.csv", lines(",", (*NAMES, "x", "X", "x"), [(*row, 1, 2, 3) for row in ROWS]))
    assert ingested(path)[0] == EXPECTED


def test_quoted_newlines_and_delimiters(tmp_path, ingested):
    path = write(tmp_path / "log.csv", 'user_id,item_id,timestamp\nu,"a\nb",1\nu,"c,""d""",2\n')
    assert [row["item_id"] for row in ingested(path)[0]] == ["a\nb", 'c,"d"']


def test_json_objects_may_nest_and_vary(tmp_path, ingested):
    events = [
        {"user_id": "a", "item_id": 1, "timestamp": 1, "more": {"x": [1]}},
        {"timestamp": 2.0, "user_id": "b", "item_id": "02"},
    ]
    rows, _ = ingested(write(tmp_path / "log.jsonl", "".join(json.dumps(event) + "\n" for event in events)))
    assert [tuple(row.values()) for row in rows] == [("a", "1", 1), ("b", "02", 2)]


# -- what is refused


def test_no_such_file(tmp_path, refused):
    assert refused(tmp_path / "nowhere.csv") == f"{tmp_path}/nowhere.csv: no such file or folder"


def test_nothing_matches(tmp_path, refused):
    assert refused(tmp_path / "*.csv") == f"source '{tmp_path}/*.csv': no file matches"


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.inter", "log.jsonl", "log.parquet"])
def test_empty_file(tmp_path, refused, name):
    assert refused(write(tmp_path / name, "")) == f"{tmp_path}/{name}: the file is empty"


@pytest.mark.parametrize("name", ["log.csv", "log.tsv.gz"])
def test_header_alone(tmp_path, refused, name):
    path = write(tmp_path / name, "\t".join(NAMES) if "tsv" in name else ",".join(NAMES) + "\n")
    assert refused(path) == f"{path}: no interactions, the file is empty"


def test_parquet_without_rows(tmp_path, refused):
    pq.write_table(pa.table({name: pa.array([], pa.int64()) for name in NAMES}), tmp_path / "log.parquet")
    assert refused(tmp_path / "log.parquet") == f"{tmp_path}/log.parquet: no interactions, the file is empty"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("log.csv", "user,item_id,timestamp\nu,i,1\n", "user, item_id, timestamp"),
        ("log.csv", "user_id;item_id;timestamp\nu;i;1\n", "user_id;item_id;timestamp"),
        ("log.csv", "196,242,881250949\n", "196, 242, 881250949"),
        ("log.inter", "user:token\titem_id:token\ttimestamp:float\nu\ti\t1\n", "user, item_id, timestamp"),
        ("log.jsonl", '{"user": 1, "item_id": 2}\n', "user, item_id"),
    ],
)
def test_missing_column(tmp_path, refused, name, text, found):
    path = write(tmp_path / name, text)
    assert refused(path) == f"{path}: no column 'user_id' for user_id, found: {found}"


def test_missing_column_of_parquet_in_one_of_many(tmp_path, refused):
    parquet(tmp_path / "log" / "1.parquet")
    second = parquet(tmp_path / "log" / "2.parquet", names=("user_id", "movie", "timestamp", "rating"))
    message = refused(tmp_path / "log")
    assert message == f"{second}: no column 'item_id' for item_id, found: user_id, movie, timestamp, rating"


def test_unreadable_parquet_among_good_ones(tmp_path, refused):
    parquet(tmp_path / "log" / "1.parquet")
    second = parquet(tmp_path / "log" / "2.parquet")
    second.write_bytes(second.read_bytes()[:-20])
    assert refused(tmp_path / "log").startswith(f"{second}: not a Parquet file: ")


def test_parquet_damaged_inside(tmp_path, refused):
    path = parquet(tmp_path / "log.parquet", [(f"u{n}", f"i{n}", n, 1.0) for n in range(20_000)])
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    assert "log.parquet" in refused(path)


def test_mixed_types_of_a_column(tmp_path, refused):
    first = parquet(tmp_path / "log" / "1.parquet")
    second = parquet(tmp_path / "log" / "2.parquet", [(1, "i", 1, 1.0)])
    assert refused(tmp_path / "log") == f"{second}: column 'user_id' is int64, in {first} it is string"


def test_mixed_headers(tmp_path, refused):
    first = write(tmp_path / "log" / "1.csv", "user_id,item_id,timestamp\nu,i,1\n")
    second = write(tmp_path / "log" / "2.csv", "item_id,user_id,timestamp\ni,u,1\n")
    message = refused(tmp_path / "log")
    assert message == f"{second}: columns item_id, user_id, timestamp, {first} has user_id, item_id, timestamp"


def test_mixed_formats(tmp_path, refused):
    write(tmp_path / "log" / "1.csv", lines(","))
    write(tmp_path / "log" / "2.tsv", lines("\t"))
    assert refused(tmp_path / "log") == f"{tmp_path}/log: 1.csv is csv and 2.tsv is tsv, expected one format"


def test_mixed_compression(tmp_path, refused):
    write(tmp_path / "log" / "1.csv", lines(","))
    write(tmp_path / "log" / "2.csv.gz", lines(","))
    assert "some files are compressed and some are not" in refused(tmp_path / "log")


@pytest.mark.parametrize("name", ["log.xlsx", "log"])
def test_unknown_format(tmp_path, refused, name):
    path = write(tmp_path / name, "x")
    message = refused(path)
    assert message.startswith(f"{path}: cannot tell the format, set ingest.format or use a suffix of: .parquet")


@pytest.mark.parametrize("marker", ["", "_SUCCESS", ".part.csv.crc"])
def test_an_empty_folder(tmp_path, refused, marker):
    (tmp_path / "log").mkdir()
    if marker:
        (tmp_path / "log" / marker).touch()
    assert refused(tmp_path / "log") == f"{tmp_path}/log: the folder holds no file of a log"


def test_folder_without_a_log(tmp_path, refused):
    write(tmp_path / "log" / "README", "x")
    assert "cannot tell the format" in refused(tmp_path / "log")


def test_malformed_line(tmp_path, refused):
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,i,1\nu,i\n")
    message = refused(path)
    assert message.startswith(str(path))
    assert "Line: 3 Original Line: u,i Expected Number of Columns: 3 Found: 2" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("not json\n", "line 1 is not JSON"),
        ("[1, 2]\n", "line 1 is list, expected one JSON object a line"),
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n{broken\n', "line 2"),
    ],
)
def test_malformed_json(tmp_path, refused, text, part):
    message = refused(write(tmp_path / "log.jsonl", text))
    assert "log.jsonl" in message
    assert part in message


def test_text_of_another_encoding(tmp_path, refused):
    path = tmp_path / "log.csv"
    path.write_bytes("user_id,item_id,timestamp\né,i,1\n".encode("latin-1"))
    assert "utf-8" in refused(path).lower()


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.zst"])
def test_a_compressed_file_that_is_cut_off(tmp_path, refused, name):
    path = write(tmp_path / name, lines(",") * 2000)
    path.write_bytes(path.read_bytes()[:-30])
    assert name in refused(path)


@pytest.mark.parametrize("twin", ["USER_ID", "user_id"])
def test_a_wanted_column_that_stands_twice_is_refused(tmp_path, refused, twin):
    log = write(tmp_path / "log.csv", lines(",", header=(*NAMES, twin), rows=[(*row, "x") for row in ROWS]))
    message = refused(log)
    assert "'user_id' is not unique" in message
    assert twin in message


def test_gzip_damaged_near_its_start(tmp_path, refused):
    whole = gzip.compress(lines(",", rows=ROWS * 500).encode())
    log = tmp_path / "log.csv.gz"
    log.write_bytes(whole[:12] + bytes([whole[12] ^ 0xFF, whole[13] ^ 0xFF]) + whole[14:])
    assert "log.csv.gz: cannot read" in refused(log)
