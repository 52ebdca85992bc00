"""Speed, memory and accuracy of nalu_kernels beside eager PyTorch and torch.compile.

``python -m pytest benchmarks`` measures the speed, ``python -m benchmarks.accuracy`` the errors,
``python -m benchmarks.training_step`` whole training steps, ``python -m benchmarks.frozen`` what
frozen tensors save, ``python -m benchmarks.inference`` what kept weights do, ``python -m
benchmarks.many_seeds`` what stacked layers do; ``python -m benchmarks.gpu`` does all that needs a
GPU; ``python -m benchmarks.table`` prints what they wrote and puts it into the README and docs/.
"""
