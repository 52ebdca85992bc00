"""The experiment ``static`` alone: python examples/static.py (--help has its options).

Its code is nalu_kernels/experiments/static.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["static", *sys.argv[1:]]))
