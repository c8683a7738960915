"""What the tests of ingest share."""

NOON = 1_700_000_000

HEADER = "user_id,item_id,timestamp\n"


def good(count=3, first=0):
    rows = list(range(first, first + count))
    return {"user_id": rows, "item_id": rows, "timestamp": [NOON + row for row in rows]}


def column(rows, name):
    return [row[name] for row in rows]
