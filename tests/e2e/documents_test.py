"""Documents that cannot be taken: one line each that says what to do, exit code 1, and everything else of the run is in."""

import gzip
import json
import os
import random
import socket
import unittest

import harness
from harness import protobuf_field

MIB = 1 << 20
UPSERT = "/retro.retriever.v1.RetrieverService/UpsertDocuments"


class BadDocuments(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.retriever = self.start_retriever()
        self.write("docs/good.txt", "What can be done is done.\n")

    def ingest_beside_good(self, bad, *words, stored=()):
        """`bad` in one run with a good document, first: the good one must come through."""
        run = self.retro("ingest", bad, "docs/good.txt")
        self.assert_skips(run, bad, *words)
        self.assertEqual(self.stored_ids(), sorted(["docs/good.txt", *stored]))

    def test_a_missing_file(self):
        self.ingest_beside_good("docs/missing.txt", "no such file")

    def test_a_file_that_cannot_be_read(self):
        os.symlink("/proc/self/mem", self.path("docs/broken.txt"))  # opens, then fails to be read, also for root
        self.ingest_beside_good("docs/broken.txt", "cannot read")

    def test_a_file_that_cannot_be_opened(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path("docs/closed.txt"))  # which nobody can, root neither
            self.ingest_beside_good("docs/closed.txt", "cannot open")

    def test_a_binary_file(self):
        self.write("docs/program.txt", b"\x7fELF\x02\x01\x01\x00\x00\x00" * 100)
        self.ingest_beside_good("docs/program.txt", "binary", "convert")

    def test_bad_utf8(self):
        self.write("docs/latin.txt", "caf\xe9 au lait".encode("latin-1"))
        self.ingest_beside_good("docs/latin.txt", "UTF-8", "byte 3", "--encoding")
        self.retro_ok("ingest", "--encoding", "latin-1", "docs/latin.txt")
        self.assertEqual(self.exported()["docs/latin.txt"]["text"], "caf\xe9 au lait")

    def test_bad_utf8_in_one_line_of_jsonl(self):
        self.write("docs/some.jsonl", b'{"id":"a","text":"one"}\n{"id":"b","text":"\xff"}\n{"id":"c","text":"three"}\n')
        run = self.retro("ingest", "docs/some.jsonl")
        self.assert_skips(run, "docs/some.jsonl:2", "UTF-8")
        self.assertEqual(self.stored_ids(), ["a", "c"])

    def test_an_empty_document(self):
        self.write("docs/empty.txt", "")
        self.ingest_beside_good("docs/empty.txt", "no text")

    def test_an_empty_text_in_jsonl(self):
        self.write_jsonl("docs/some.jsonl", [{"id": "a", "text": ""}, {"id": "b", "text": "b"}])
        run = self.retro("ingest", "docs/some.jsonl")
        self.assertEqual(run.code, 1, run)
        self.assertEqual(len(run.error_lines), 1, run)
        self.assertEqual(self.stored_ids(), ["b"])

    def test_a_line_that_is_no_document(self):
        self.write("docs/some.jsonl", '{"id":"a","text":"one"}\n{"id": \n[1]\n{"id":"d"}\n{"id":"e","text":"five"}\n')
        run = self.retro("ingest", "docs/some.jsonl")
        self.assertEqual(run.code, 1, run)
        self.assertEqual(len(run.error_lines), 3, run)
        for number, line in enumerate(run.error_lines, 2):
            self.assertIn(f"docs/some.jsonl:{number}: ", line)
        self.assertEqual(self.stored_ids(), ["a", "e"])

    def test_a_line_of_100_mb(self):
        with open(self.path("docs/long.jsonl"), "w", encoding="ascii") as f:
            f.write('{"id":"a","text":"one"}\n{"id":"long","text":"')
            for _ in range(100):
                f.write("word " * 200_000)
            f.write('"}\n{"id":"c","text":"three"}\n')
        run = self.retro("ingest", "docs/long.jsonl")
        self.assert_skips(run, "docs/long.jsonl:2", "line")
        self.assertEqual(self.stored_ids(), ["a", "c"])

    def test_a_truncated_gz_is_not_taken_in_part(self):
        whole = gzip.compress(random.Random(1).randbytes(3 * MIB).hex().encode())
        self.write("docs/cut.txt.gz", whole[:-1000])
        self.ingest_beside_good("docs/cut.txt.gz", "truncated")

    def test_a_truncated_jsonl_gz_gives_the_lines_it_has(self):
        lines = b"".join(json.dumps({"id": f"{i:04}", "text": f"text {i * 7919 % 4093}"}).encode() + b"\n" for i in range(2000))
        whole = gzip.compress(lines)
        self.write("docs/cut.jsonl.gz", whole[:len(whole) // 2])
        run = self.retro("ingest", "docs/cut.jsonl.gz")
        self.assert_skips(run, "docs/cut.jsonl.gz", "truncated")
        stored = self.stored_ids()
        self.assertGreater(len(stored), 0)
        self.assertEqual(stored, [f"{i:04}" for i in range(len(stored))])

    def test_a_document_past_8_mib_is_cut_by_the_command(self):
        text = "".join(f"Paragraph {i} of a long, long text.\n\n" for i in range(9 * MIB // 38))
        self.assertGreater(len(text), 8 * MIB)
        self.write_jsonl("docs/long.jsonl", [{"id": "long", "text": text}])
        self.retro_ok("ingest", "docs/long.jsonl")
        stored = self.exported()
        self.assertEqual(sorted(stored), ["long#1", "long#2"])
        self.assertEqual(stored["long#1"]["text"] + stored["long#2"]["text"], text)

    def test_a_document_past_8_mib_is_refused_by_the_service(self):
        def upsert(size):
            document = protobuf_field(1, b"long") + protobuf_field(3, b"a" * size)
            good = protobuf_field(1, b"good") + protobuf_field(3, b"good")
            request = b"".join(protobuf_field(2, protobuf_field(1, one)) for one in (document, good))
            code, message, responses = self.rpc(self.retriever.address, UPSERT, request)
            return code, message + "".join(r.decode("utf-8", "replace") for r in responses)
        code, said = upsert(8 * MIB + 1)
        self.assertEqual(code, 0)  # a document's error does not concern its neighbours
        self.assertIn("8388608", said.replace(",", ""))
        self.assertEqual(self.stored_ids(), ["good"])

    def test_a_text_that_grows_and_shrinks_leaves_nothing_behind(self):
        text = lambda count: "".join(f"Paragraph {i} of a text that is cut.\n\n" for i in range(count))
        names = lambda count: [f"docs/text.txt#{i + 1}" for i in range(count)] if count > 1 else ["docs/text.txt"]
        for paragraphs, parts in ((20, 1), (120, 5), (60, 3), (20, 1)):
            self.write("docs/text.txt", text(paragraphs))
            self.retro_ok("ingest", "docs/text.txt", "docs/good.txt", "--part-bytes", "1024")
            stored = self.exported()
            self.assertEqual(sorted(stored), sorted(["docs/good.txt", *names(parts)]))
            self.assertEqual("".join(stored[name]["text"] for name in names(parts)), text(paragraphs))

    def test_an_unknown_ending(self):
        self.write("docs/image.png", b"\x89PNG")
        self.ingest_beside_good("docs/image.png", ".txt")

    def test_a_folder_with_all_of_it(self):
        self.write("docs/b/empty.md", "")
        self.write("docs/b/program.txt", b"\0\1\2")
        self.write("docs/b/cut.txt.gz", gzip.compress(b"x" * 1000)[:-5])
        self.write("docs/b/good.md", "# Title\n\nText.\n")
        run = self.retro("ingest", "docs")
        self.assertEqual(run.code, 1, run)
        self.assertEqual(len(run.error_lines), 3, run)
        self.assertEqual(self.stored_ids(), ["docs/b/good.md", "docs/good.txt"])


class WrongCalls(harness.EndToEndTest):
    def test_a_retriever_that_is_not_running(self):
        self.write("good.txt", "text")
        for command in (["ingest", "good.txt"], ["search", "x"], ["get", "x"], ["list"], ["stats"], ["export"],
                        ["delete", "x"], ["health", "retriever"]):
            run = self.retro(*command)
            self.assertEqual(run.code, 3, run)
            self.assert_one_line(run, "retro", f"127.0.0.1:{self.retriever_port}", "is it running")

    def test_a_text_that_is_no_utf8_and_an_address_that_is_none(self):
        for command in (["search", b"caf\xe9"], ["get", b"caf\xe9"], ["search", "x", "--retriever", "127.0.0.1:99999"]):
            run = self.retro(*command)
            self.assertEqual(run.code, 2, run)
            self.assert_one_line(run, "retro")

    def test_an_unknown_flag_or_command(self):
        for command in (["ingest", "--nonsense", "x"], ["nonsense"], ["search"]):
            run = self.retro(*command)
            self.assertEqual(run.code, 2, run)
            self.assert_one_line(run, "retro", "--help")


if __name__ == "__main__":
    harness.main()
