"""The experiment ``single`` alone: python examples/single.py (--help has its options).

Its code is nalu_kernels/experiments/single.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["single", *sys.argv[1:]]))
