"""The experiment ``testbench`` alone: python examples/testbench.py (--help has its options).

Its code is nalu_kernels/experiments/testbench.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["testbench", *sys.argv[1:]]))
