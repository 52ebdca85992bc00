"""The paper's experiments on this library's layers; ``python -m nalu_kernels`` runs them.

They need the packages of the extra ``experiments`` (matplotlib, scikit-learn, tqdm). ``toolkit``
trains, ``report`` writes, ``plot`` draws; each other module is one experiment.
"""
