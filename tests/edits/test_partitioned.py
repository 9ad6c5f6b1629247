"""A log in many Parquet files: folders, globs, hive partitions, object stores, and files that do not fit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import iter_records, on_disk, read_log, summarize, write_log
from editloop.edits.formats.partitioned import PartitionedLog
from editloop.errors import ConfigError, EditLoopError, LogError, LogFormatError

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def write(path: Path, rows: list[dict[str, Any]], **types: Any) -> Path:
    """Write rows as Parquet; the types are those of their columns, by default what the values are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    pq.write_table(pa.table(columns), path)
    return path


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"context": f"c{number}", "response": f"r{number}", "edit": f"e{number}"} | more


def fails(log: Any, *words: str) -> str:
    with pytest.raises(EditLoopError) as caught:
        read_log(log)
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of two users in three files, with hive partitions and what Spark leaves beside them."""
    root = tmp_path / "log"
    write(root / "user=ann" / "part-0.parquet", [row(0), row(1)])
    write(root / "user=ann" / "part-1.parquet", [row(2)])
    write(root / "user=bob%20b" / "part-0.parquet", [row(3)])
    (root / "_SUCCESS").write_text("")
    (root / "user=ann" / ".part-0.parquet.crc").write_bytes(b"crc")
    return root


def test_a_folder_is_read_in_the_order_of_its_files_with_the_columns_of_its_paths(folder: Path) -> None:
    log = read_log(folder)
    assert [(record.context, record.user) for record in log] == [
        ("c0", "ann"),
        ("c1", "ann"),
        ("c2", "ann"),
        ("c3", "bob b"),
    ]
    assert log.report.read_as == ("PARQUET-FILES", "3 files") and log.report.sha256


def test_a_glob_is_the_same_log(folder: Path) -> None:
    assert read_log(f"{folder}/**/*.parquet").records == read_log(folder).records
    assert [record.user for record in read_log(f"{folder}/user=a*")] == ["ann"] * 3
    assert [record.user for record in read_log(folder, user="bob b")] == ["bob b"]


def test_no_value_in_a_path_is_none(tmp_path: Path) -> None:
    write(tmp_path / "policy=__HIVE_DEFAULT_PARTITION__" / "a.parquet", [row(0)])
    assert read_log(tmp_path).records[0].policy is None


def test_duplicates_and_ids_are_compared_across_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0, id="x"), row(1, id="y")])
    write(tmp_path / "b.parquet", [row(0, id="z"), row(2, id="x")])
    log = read_log(tmp_path, max_bad_share=0.5)
    assert [record.id for record in log] == ["x", "y"]
    assert log.report.duplicates == 1
    assert log.report.first_bad == "line 4: id: belongs to an earlier row with other content"


def test_a_map_names_columns_of_all_files(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.parquet", [{"q": f"c{i}", "a": {"text": f"r{i}"}, "edit": "e"}])
    log = read_log(tmp_path, map="context=q,response=a.text")
    assert [record.response for record in log] == ["r0", "r1"]


def test_old_files_may_lack_what_newer_ones_added(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0)])
    write(tmp_path / "b.parquet", [row(1, policy="p", propensity=0.5)])
    log = read_log(tmp_path)
    assert [record.policy for record in log] == [None, "p"]
    assert log.report.read_as[1:] == ("2 files", "no policy in 1 of them", "no propensity in 1 of them")


def test_a_file_without_edits_is_refused_with_its_name_and_the_column(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0)])
    write(tmp_path / "b.parquet", [{"context": "c", "response": "r"}])
    fails(tmp_path, "b.parquet", "edit")


def test_another_type_is_refused_with_both_files_and_the_column(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0, time="2026-01-01")])
    write(tmp_path / "b.parquet", [row(1, time=5)])
    fails(tmp_path, "a.parquet", "b.parquet", "time", "texts", "integers")


def test_types_that_mean_the_same_are_one_log(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0)])
    write(tmp_path / "b.parquet", [row(1)], response=pa.large_string())
    write(tmp_path / "c.parquet", [row(2)], response=pa.dictionary(pa.int8(), pa.string()))
    write(tmp_path / "d.parquet", [row(3, edit=None)], edit=pa.null())
    assert [record.status for record in read_log(tmp_path)] == ["edited"] * 3 + ["pending"]


def test_a_file_that_is_cut_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0)])
    whole = write(tmp_path / "b.parquet", [row(i) for i in range(1000)]).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    fails(tmp_path, "b.parquet", "not a whole Parquet file")


def test_a_file_whose_pages_are_damaged_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0)])
    whole = bytearray(write(tmp_path / "b.parquet", [row(i) for i in range(1000)]).read_bytes())
    whole[8:2000] = b"\xff" * 1992  # the footer at the end is whole
    (tmp_path / "b.parquet").write_bytes(whole)
    fails(tmp_path, "b.parquet", "damaged after row 0")


def test_where_there_is_nothing_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    fails(tmp_path / "empty", "empty folder")
    fails(tmp_path / "texts", "no Parquet file")
    fails(f"{tmp_path}/*.parquet", "no file has such a name", "*.parquet")
    fails(f"{tmp_path}/texts/*", "not a whole Parquet file", "a.txt")


def test_a_name_with_a_bracket_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "log[1].parquet", [row(0)])
    assert len(read_log(str(tmp_path / "log[1].parquet"))) == 1


def test_bad_rows_have_the_number_that_they_have_in_the_whole_log(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(0), row(1)])
    write(tmp_path / "b.parquet", [row(2), row(3, response=" ")])
    log = read_log(tmp_path, max_bad_share=0.5, quarantine=tmp_path / "bad.jsonl")
    assert log.report.first_bad == "line 4: response: empty"


def test_the_views_and_the_summary_are_those_of_one_file(folder: Path, tmp_path: Path) -> None:
    write_log(read_log(folder), tmp_path / "one.jsonl")
    many, one = summarize(iter_records(folder)).to_json(), summarize(tmp_path / "one.jsonl").to_json()
    del many["report"], one["report"]
    assert many == one


def test_the_hash_is_that_of_the_files(folder: Path) -> None:
    before = read_log(f"{folder}/*/*").report.sha256
    assert read_log(f"{folder}/*/*").report.sha256 == before
    write(folder / "user=ann" / "part-1.parquet", [row(9)])
    assert read_log(f"{folder}/*/*").report.sha256 != before


def test_the_name_for_files_that_are_made_from_it(tmp_path: Path) -> None:
    stems = {address: PartitionedLog(address).stem for address in ("a/log/*.parquet", "s3://b/log", "*")}
    assert stems == {"a/log/*.parquet": "log", "s3://b/log": "log", "*": "log"}


class TestLarge:
    """What is kept on the disk, of a log that counts as large."""

    @pytest.fixture(autouse=True)
    def _large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("duckdb")
        monkeypatch.setattr(on_disk, "LARGE_ROWS", 1)

    @staticmethod
    def rows(count: int = 3000) -> list[dict[str, Any]]:
        """Rows of which many repeat an earlier content, an earlier id, or both; some are bad."""
        made = []
        for i in range(count):
            number = i * 7919 % 1777
            made.append(
                row(
                    number,
                    id=f"id{i * 31 % 2500}" if i % 3 else None,
                    edit=f"e{number % 2}" if number % 5 else None,
                    status="accepted" if number % 25 == 0 else None,
                    response=" " if i % 97 == 0 else f"r{number}",
                )
            )
        return made

    @pytest.mark.parametrize("parts", [1, 4])
    def test_the_records_are_those_of_the_way_in_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
    ) -> None:
        rows = self.rows()
        for i in range(parts):
            size = len(rows) // parts
            write(tmp_path / f"{i}.parquet", rows[i * size : (i + 1) * size], status=pa.string())
        log = tmp_path if parts > 1 else tmp_path / "0.parquet"
        large = read_log(log, max_bad_share=1)
        monkeypatch.setattr(on_disk, "LARGE_ROWS", 10**9)
        small = read_log(log, max_bad_share=1)
        assert large.records == small.records
        assert large.report == small.report
        assert small.report.duplicates > 100 and small.report.bad_rows > 20

    def test_only_rows_that_may_be_repeated_are_suspects(self, tmp_path: Path) -> None:
        from editloop.edits.formats import open_source

        write(tmp_path / "a.parquet", [row(i, id=f"i{i}") for i in range(2000)])
        write(tmp_path / "b.parquet", [row(5, id="new"), row(9000, id="i7"), row(9001, id="alone")])
        found = on_disk.find_suspects(open_source(tmp_path), {})
        assert found is not None
        assert [i for i in range(2003) if i in found] == [5, 7, 2000, 2001]

    def test_a_log_that_cannot_be_scanned_is_compared_in_memory(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", [{"context": "c", "a": {"text": "r"}, "edit": "e"}] * 2)
        log = read_log(tmp_path, map="response=a.text")
        assert (len(log), log.report.duplicates) == (1, 1)

    @pytest.mark.parametrize("begin", [8, 150_000])
    def test_a_damaged_file_is_one_line_where_it_is_scanned(self, tmp_path: Path, begin: int) -> None:
        write(tmp_path / "a.parquet", [row(0)])
        rows = [row(i, response=f"{i * 7919 % 104729:x} {i}") for i in range(30_000)]
        whole = bytearray(write(tmp_path / "b.parquet", rows).read_bytes())
        whole[begin : begin + 4000] = b"\xff" * 4000
        (tmp_path / "b.parquet").write_bytes(whole)
        fails(tmp_path, "damaged")

    def test_a_column_that_holds_no_texts_is_compared_in_memory(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", [row(0, response=["r"]), row(1, response=["r"])])
        log = read_log(tmp_path, max_bad_share=1)
        assert log.report.bad_rows == 2

    def test_a_full_disk_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import duckdb

        write(tmp_path / "a.parquet", self.rows())

        def full(*_: Any, **__: Any) -> None:
            raise duckdb.IOException("Could not write: No space left on device\nmore")

        monkeypatch.setattr(on_disk, "add_batches", full)
        fails(tmp_path, "No space left on device", "TMPDIR")


class TestElsewhere:
    """Logs in object stores, by fsspec."""

    @pytest.fixture(autouse=True)
    def _fsspec(self) -> None:
        pytest.importorskip("fsspec")

    @pytest.fixture
    def bucket(self, folder: Path) -> Iterator[str]:
        import fsspec

        memory = fsspec.filesystem("memory")
        for path in folder.rglob("*.parquet"):
            target = f"/bucket/log/{path.relative_to(folder).as_posix()}"
            memory.makedirs(target.rpartition("/")[0], exist_ok=True)
            memory.pipe_file(target, path.read_bytes())
        yield "memory://bucket/log"
        memory.store.clear()

    def test_a_bucket_is_read_as_a_folder_is(self, bucket: str, folder: Path) -> None:
        assert read_log(bucket).records == read_log(folder).records
        assert len(read_log(f"{bucket}/user=ann/*.parquet")) == 3
        assert len(read_log(f"{bucket}/user=ann/part-1.parquet")) == 1
        assert read_log(bucket).report.sha256 == read_log(bucket).report.sha256

    def test_what_is_not_there_is_one_line(self, bucket: str) -> None:
        fails("memory://bucket/other", "no Parquet file")
        fails(f"{bucket}/*.csv", "no Parquet file")

    def test_a_scheme_without_its_library_names_it(self) -> None:
        with pytest.raises(ConfigError, match="library"):
            read_log("gs://bucket/log")
        with pytest.raises(ConfigError, match="no such kind of address"):
            read_log("nonsense://bucket/log")

    @pytest.mark.parametrize("status", [404, 403])
    def test_a_bucket_that_is_not_there_is_refused_quickly(
        self, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        pytest.importorskip("s3fs")
        asked: list[str] = []

        class Store(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                code = "NoSuchBucket" if status == 404 else "AccessDenied"
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._credentials(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        try:
            fails("s3://nowhere/log", "s3://nowhere/log")
        finally:
            server.shutdown()
            server.server_close()
        assert 0 < len(asked) < 10

    def test_a_store_that_does_not_answer_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("s3fs")
        self._credentials(monkeypatch, "http://127.0.0.1:9")  # where nobody listens
        fails("s3://nowhere/log", "s3://nowhere/log")

    @staticmethod
    def _credentials(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_errors_are_of_the_one_tree() -> None:
    assert issubclass(LogFormatError, LogError)
