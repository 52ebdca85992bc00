"""The Triton back end: imported, but for ``deferred.py``, when a GPU tensor first needs it."""

NAMESPACE = "nalu_kernels_triton"
FUNCTIONS = ("nac", "nalu", "nau", "nmu", "inalu", "npu", "nru", "nmru")  # that it has kernels of
