"""The experiment ``digits`` alone: python examples/digits.py (--help has its options).

Its code is nalu_kernels/experiments/digits.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["digits", *sys.argv[1:]]))
