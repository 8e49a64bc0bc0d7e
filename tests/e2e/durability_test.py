"""What is acknowledged stays, whatever happens to the service; what is not can be sent again and is there once."""

import contextlib
import json
import signal
import subprocess
import threading
import unittest

import harness

DOCUMENTS = 4000
WITHHELD = 1000  # of these, from an ingest that is to be disturbed before its end


def document(number):
    words = " ".join(f"word{(number * 31 + i * 17) % 997}" for i in range(150))
    return {"id": f"document-{number:05}", "title": f"Number {number}", "text": f"Document {number}. {words}",
            "metadata": {"number": number, "even": number % 2 == 0, "tags": ["a", f"t{number % 7}"]}}


class Durability(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.write_jsonl("all.jsonl", (document(i) for i in range(DOCUMENTS)))

    def documents_stored(self):
        (stats,) = self.retro_ok("stats", "--json").json()
        return int(stats["shards"][0]["collections"][0].get("documents", 0))

    def all_lines(self):
        with open(self.path("all.jsonl"), "rb") as file:
            return file.readlines()

    def ingest_until(self, count, *more):
        """An ingest of which at least `count` documents are stored, and what lets it come to the end."""
        command = self.popen([harness.program("retro"), "ingest", "--json", "-", *more], stdin=subprocess.PIPE)
        to_command, command.stdin = command.stdin, None  # else communicate() would close it
        lines = self.all_lines()
        go_on = threading.Event()

        def feed():
            with contextlib.suppress(BrokenPipeError), to_command:  # it may have ended
                to_command.writelines(lines[:-WITHHELD])
                to_command.flush()
                go_on.wait(harness.WAIT_S)
                to_command.writelines(lines[-WITHHELD:])
        threading.Thread(target=feed, daemon=True).start()
        harness.wait_for(f"{count} documents are stored", lambda: self.documents_stored() >= count)
        self.assertIsNone(command.poll(), "it ended before it could be disturbed")
        return command, go_on.set

    def assert_all_there_once(self):
        stored = self.exported()
        self.assertEqual(len(stored), DOCUMENTS)
        for i in range(DOCUMENTS):
            self.assertEqual(stored[f"document-{i:05}"]["text"], document(i)["text"])

    def test_kill_9_in_the_middle_then_the_same_command_again(self):
        retriever = self.start_retriever()
        command, go_on = self.ingest_until(DOCUMENTS // 10, "--retries", "0")
        retriever.stop(signal.SIGKILL)
        go_on()
        out, err = command.communicate(timeout=harness.WAIT_S)
        self.assertNotEqual(command.returncode, 0)
        self.assertEqual(len(err.decode().strip().split("\n")), 2, err)  # what happened, and how to go on
        self.assertIn("run the same command again", err.decode())
        summary = json.loads(out.decode().strip().split("\n")[-1])
        self.start_retriever()
        kept = self.documents_stored()
        self.assertGreaterEqual(kept, summary["created"], "something acknowledged is lost")
        self.assertLess(kept, DOCUMENTS)
        (again,) = self.retro_ok("ingest", "--json", "-", stdin=b"".join(self.all_lines())).json()
        self.assertEqual((again["created"], again["unchanged"], again["replaced"]), (DOCUMENTS - kept, kept, 0))
        self.assert_all_there_once()

    def test_kill_9_and_a_restart_are_survived_by_the_command(self):
        retriever = self.start_retriever()
        command, go_on = self.ingest_until(DOCUMENTS // 10, "--retries", "30")
        retriever.stop(signal.SIGKILL)
        go_on()
        self.start_retriever()
        out, err = command.communicate(timeout=2 * harness.WAIT_S)
        self.assertEqual(command.returncode, 0, err)
        summary = json.loads(out.decode().strip().split("\n")[-1])
        self.assertGreater(summary["reconnects"], 0)
        self.assertEqual(summary["created"] + summary["unchanged"], DOCUMENTS)
        self.assert_all_there_once()

    def test_sigterm_in_the_middle_loses_nothing_acknowledged(self):
        retriever = self.start_retriever()
        command, go_on = self.ingest_until(DOCUMENTS // 10, "--retries", "0")
        self.assertEqual(retriever.stop(signal.SIGTERM), 0)
        go_on()
        out, err = command.communicate(timeout=harness.WAIT_S)
        summary = json.loads(out.decode().strip().split("\n")[-1])
        self.start_retriever()
        kept = self.documents_stored()
        self.assertGreaterEqual(kept, summary["created"], err)
        self.retro_ok("ingest", "all.jsonl")
        self.assert_all_there_once()

    def test_a_restart_keeps_documents_and_finds_them(self):
        retriever = self.start_retriever()
        self.retro_ok("ingest", "all.jsonl")
        query = document(1234)["text"][:300]
        find = ("search", "--json", "--k", "3", "--exact", query)  # by lists, what is found changes as they are made in the background
        before = self.retro_ok(*find).out
        self.assertEqual(retriever.stop(), 0)
        self.start_retriever()
        self.assert_all_there_once()
        self.assertEqual(self.found(self.retro_ok(*find).out), self.found(before))

    def found(self, text):
        neighbours = []

        def walk(value):
            if isinstance(value, dict):
                if "distance" in value:
                    neighbours.append((value.get("distance"), json.dumps(value.get("chunk"), sort_keys=True)))
                for child in value.values():
                    walk(child)
            elif isinstance(value, list):
                for child in value:
                    walk(child)
        for line in text.strip().split("\n"):
            walk(json.loads(line))
        self.assertGreater(len(neighbours), 0, text)
        return neighbours

    def test_an_export_ingested_elsewhere_exports_the_same(self):
        first = self.start_retriever()
        self.retro_ok("ingest", "all.jsonl")
        exported = self.retro_ok("export").out
        self.assertEqual(first.stop(), 0)
        self.start_retriever(data="second")
        self.retro_ok("ingest", "-", stdin=exported.encode())
        again = self.retro_ok("export").out
        self.assertTrue(sorted(again.split("\n")) == sorted(exported.split("\n")), "the exports differ")
        (summary,) = self.retro_ok("ingest", "--json", "-", stdin=again.encode()).json()
        self.assertEqual(summary["unchanged"], DOCUMENTS)


if __name__ == "__main__":
    harness.main()
