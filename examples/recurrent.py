"""The experiment ``recurrent`` alone: python examples/recurrent.py (--help has its options).

Its code is nalu_kernels/experiments/recurrent.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["recurrent", *sys.argv[1:]]))
