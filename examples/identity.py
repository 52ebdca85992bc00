"""The experiment ``identity`` alone: python examples/identity.py (--help has its options).

Its code is nalu_kernels/experiments/identity.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["identity", *sys.argv[1:]]))
