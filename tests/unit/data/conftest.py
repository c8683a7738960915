"""What the data tests share: small logs on disk, and where the real ones are."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model.config import IngestConfig
from glintru_model.data.ingest import ingest
from glintru_model.data.interactions import INTERACTIONS_FILE
from glintru_model.errors import GlintruError, InputError

REAL_LOGS = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def csv(tmp_path):
    """Write a CSV of user_id, item_id, timestamp (and rating) rows; returns its path."""

    def write(*rows, header="user_id,item_id,timestamp", name="log.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
        return path

    return write


@pytest.fixture
def table(tmp_path):
    """Write a Parquet log from arrays, the wanted columns that are not given filled in; returns its path."""

    def write(name="log.parquet", **columns):
        length = len(next(iter(columns.values())))
        rest = {name: list(range(length)) for name in ("user_id", "item_id", "timestamp") if name not in columns}
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({**columns, **rest}), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def write(tmp_path):
    """Write a file of the folder `log`: text, or Parquet from columns; returns its path."""

    def run(name, text=None, **columns):
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            pq.write_table(pa.table(columns), path)
        else:
            path.write_text(text)
        return path

    return run


@pytest.fixture
def interactions(tmp_path: Path) -> Callable[[list[tuple[Any, ...]]], Path]:
    """Write rows (user, item, timestamp) as ingest would leave them; returns the directory."""

    def write(rows: list[tuple[Any, ...]]) -> Path:
        directory = tmp_path / "interactions"
        directory.mkdir(exist_ok=True)
        users, items, timestamps = zip(*rows, strict=True)
        table = pa.table({"user_id": list(users), "item_id": list(items), "timestamp": list(timestamps)})
        pq.write_table(table, directory / "interactions.parquet")
        return directory

    return write


@pytest.fixture
def real_log() -> Callable[[str], Path]:
    """Find a real interaction log, or skip."""

    def find(name: str) -> Path:
        path = REAL_LOGS / f"{name}.parquet"
        if not path.is_file():
            pytest.skip(f"{name} is not here")
        return path

    return find


@pytest.fixture
def ingested(tmp_path: Path) -> Callable[..., tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Run ingest on a source with settings; returns (interactions as rows, report)."""

    def run(source: Path | str, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        config = IngestConfig(source=str(source), **settings)
        report = ingest(config, tmp_path / "out", tmp_path / "downloads")
        assert json.loads((tmp_path / "out" / "data_report.json").read_text()) == report
        return pq.read_table(tmp_path / "out" / "interactions.parquet").to_pylist(), report

    return run


@pytest.fixture
def refused_quietly(tmp_path: Path) -> Callable[..., str]:
    """As `refused`, for many calls in one test."""

    def run(source: Path | str, **settings: Any) -> str:
        with pytest.raises(InputError) as caught:
            ingest(IngestConfig(source=str(source), **settings), tmp_path / "none", tmp_path / "downloads")
        assert not (tmp_path / "none").exists()
        return str(caught.value)

    return run


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Run ingest on a source that it must refuse; returns the one line that the user sees.

    Nothing may be left behind, and what an earlier run left stays as it was.
    """

    def run(source: Path | str, **settings: Any) -> str:
        output = tmp_path / "refused"
        output.mkdir()
        (output / INTERACTIONS_FILE).touch()
        with pytest.raises(GlintruError) as caught:
            ingest(IngestConfig(source=str(source), **settings), output, tmp_path / "downloads")
        assert isinstance(caught.value, InputError)
        assert [path.name for path in output.iterdir()] == [INTERACTIONS_FILE]
        assert not list(tmp_path.glob(".refused*"))
        message = str(caught.value)
        assert "\n" not in message
        return message

    return run


class Web:
    """A web server on loopback: `files` by path, `headers` by path, `requests` as they came."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append(self.path)
                content = web.files.get(self.path.split("?")[0])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                for name, value in {"Content-Length": str(len(content)), **web.headers.get(self.path, {})}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server on loopback."""
    server = Web()
    yield server
    server.stop()
