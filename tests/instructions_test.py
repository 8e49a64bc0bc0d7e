"""No other code may be linked to a function that was compiled for instructions which the processor may lack: the object
file for AVX-512 gives away its entry and nothing that the linker could take in another file's place.
  instructions_test.py OBJECT_FILE"""
import subprocess
import sys
import unittest

OBJECT = sys.argv.pop()


class InstructionsTest(unittest.TestCase):
    def test_defines_its_entry_alone(self):
        lines = subprocess.run(["nm", "--demangle", "--defined-only", "--extern-only", OBJECT], check=True, text=True,
                               capture_output=True).stdout.splitlines()
        names = [line.split(maxsplit=2)[2] for line in lines]
        # In a build without inlining, also the vector functions, whose names hold the width.
        others = [name for name in names if "simd::avx512::" not in name and "__vector(" not in name]
        self.assertEqual(len(others), 1, names)
        self.assertTrue(others[0].startswith("retro::MultiplyPanelsAvx512("), names)


unittest.main()
