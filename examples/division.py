"""The experiment ``division`` alone: python examples/division.py (--help has its options).

Its code is nalu_kernels/experiments/division.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["division", *sys.argv[1:]]))
