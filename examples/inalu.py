"""The experiment ``inalu`` alone: python examples/inalu.py (--help has its options).

Its code is nalu_kernels/experiments/inalu.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["inalu", *sys.argv[1:]]))
