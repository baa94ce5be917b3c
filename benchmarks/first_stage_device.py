r"""The first stage on an accelerator: the batch that fills it, MFU, compiled PyTorch.

    XLA_PYTHON_CLIENT_MEM_FRACTION=.95 \
        python -m benchmarks.first_stage --device-report --config imagenet
    JAX_PLATFORMS=cpu \
        python -m benchmarks.first_stage --device-report --config imagenet --in-torch

The first: bfloat16 activations; batches double until the device's memory is full, and
each that fits is timed. MFU is XLA's count of the step's operations by the time that it
takes and the device's peak in bfloat16. The second, in a process of its own because the
first one's memory is not given back: PyTorch at the batch that `--batch` says, or half
of it where it must, compiled, channels last and under autocast (LPIPS too, which is
float32 with us); weights and pictures come from the CPU. The paper's cases need neither
TensorFlow nor clu nor ml_collections.

Not run yet: there was no accelerator. On CPUs it runs, without MFU and memory.
"""

import json
import time
from collections.abc import Callable
from importlib.metadata import version

import jax

# Peaks of dense products in bfloat16, FLOP/s, from the makers' data sheets.
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}
STEPS = 10


def report(case, make_ours: Callable, largest: int) -> None:
    """Prints one JSON line for each batch from the case's own on, up to `largest`.

    `make_ours(case)` builds what has `step` and `compiled_step`.
    """
    batch = case.batch
    while batch <= largest:
        try:
            line = of_ours(make_ours(in_half_precision(case, batch)))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(json.dumps({"does_not_fit": batch}))
            return
        print(json.dumps(line), flush=True)
        batch *= 2


def in_half_precision(case, batch: int):
    """The case with bfloat16 activations, at a batch."""
    section = dict(case.section)
    section["model"] = {**section["model"], "dtype": "bfloat16"}
    return case._replace(section=section | {"batch_size": batch}, batch=batch)


def of_ours(ours) -> dict:
    """Speed, MFU and peak memory of our step."""
    device = jax.devices()[0]
    compiled = ours.compiled_step()
    seconds = per_step(ours.step)
    flops = compiled.cost_analysis()["flops"]
    peak = PEAKS.get(device.device_kind)
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "device": device.device_kind,
        "jax": jax.__version__,
        "batch": ours.case.batch,
        "images_per_s": round(ours.case.batch / seconds, 2),
        "tflop_per_step": round(flops / 1e12, 3),
        "mfu": peak and round(flops / seconds / peak, 3),
        "peak_gb": memory and round(memory / 2**30, 1),
    }


def report_torch(case, make_ours: Callable, make_torch: Callable) -> None:
    """Prints one JSON line of PyTorch's speed; `make_torch(case, ours, **settings)`."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = {"device": device, "channels_last": True, "half": True}
    settings["compiled"] = device == "cuda"
    batch = case.batch
    while True:
        case = in_half_precision(case, batch)
        try:
            seconds = per_step(make_torch(case, make_ours(case), **settings).step)
            break
        except torch.OutOfMemoryError:
            batch //= 2
    line = {"torch": version("torch"), "batch": batch, **settings}
    print(json.dumps(line | {"images_per_s": round(batch / seconds, 2)}))


def per_step(step: Callable) -> float:
    """Seconds of a step, whose metrics are on the host when it returns."""
    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - began) / STEPS
