"""The Triton back end: imported, but for ``deferred.py``, when a GPU tensor first needs it."""

NAMESPACE = "nalu_kernels_triton"
# That it has kernels of.
FUNCTIONS = (
    *("nac", "nalu", "nau", "nmu", "inalu", "npu", "nru", "nmru"),
    *("nac_unroll", "nalu_unroll", "nau_unroll", "nmu_unroll", "inalu_unroll", "npu_unroll"),
)
