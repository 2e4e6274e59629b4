"""How fast does an iteration run here, and where does its time go?

    python study/bench.py                            the default run's networks
    python study/bench.py --preset paper --batch 8   the paper's, at 256 px; any setting of trip.py may follow

Counts the multiply-adds of all passes of an iteration, and compares with a large matrix product there.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data  # noqa: E402
import trip  # noqa: E402


class Counter(TorchDispatchMode):
    """Within it, counts the multiply-adds of all convolutions and matrix products, of all passes."""

    macs = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count:
            self.macs += count(*args, **(kwargs or {}), out_val=out) // 2
        return out


def wait(device):
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def rate(device, once, seconds, n=1):
    """How often a second `once()` runs, called n times between two looks at the clock."""
    once()
    wait(device)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(n):
            once()
        wait(device)
        done += n
    return done / (time.perf_counter() - started)


def matrix_rate(device, dtype):
    """Multiply-adds a second of the product of two large square matrices: the best of three tries."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return n ** 3 * max(rate(device, lambda: a @ b, 1, 5) for _ in range(3))


def peak_memory(device):
    """Bytes: of the GPU's memory, or of the whole process; nan where nobody says (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return float("nan")
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def share_of_convolutions(device, once):
    """The convolutions' share of the time of three calls, all passes; nan where no profiler tells (mps)."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(3):
            once()
        wait(device)
    clock = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    times = {event.key: getattr(event, clock, 0) for event in profiler.key_averages()
             if device.type == "cpu" or event.key.startswith("aten::")}
    convolutions = sum(t for key, t in times.items() if key.startswith("aten::") and "conv" in key)
    return convolutions / (sum(times.values()) or float("nan"))


@trip.program("study/bench.py")
def main(argv):
    args = trip.parse(argv, "study/bench.py")
    if args.edit or args.resume:
        raise data.InputError("--edit, --resume: bench.py takes settings of a training only; leave these out")
    c, device = replace(args.config, steps=10 ** 9, warmup=0.0), trip.choose_device(args.device)
    if len(c.attr) > len(data.FACE_ATTRS):
        raise data.InputError(f"--attr: at most {len(data.FACE_ATTRS)} here, for it draws its pictures")
    run = trip.Run(c, device)
    faces = data.faces(data.FACE_ATTRS[:len(c.attr)], c.size, n=max(64, c.batch))
    once = trip.train(run, data.pairs(faces, c.batch, run.rng, device)).__next__
    for _ in range(3):  # the first ones are slow: choice of kernels
        once()
    with Counter() as counter:
        once()
    its, memory = rate(device, once, 10), peak_memory(device)
    dtype = torch.bfloat16 if run.bf16 else torch.float32
    matrix = matrix_rate(device, dtype)
    cores = f"{device}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device.type == "cuda" else cores
    G, R = (sum(p.numel() for p in net.parameters()) / 1e6 for net in (run.G, run.R))
    flops, most = 2e-12 * counter.macs * its, 2e-12 * matrix
    print(f"preset {args.preset or 'small'} on {name}, PyTorch {torch.__version__}, {str(dtype)[6:]}")
    print(f"{c.size} x {c.size} pixels, batch {c.batch}; parameters: G {G:.2f} M, R {R:.2f} M")
    print(f"{its:.2f} iterations/s, {its * c.batch:.1f} images/s, {1 / its:.3f} s an iteration")
    print(f"peak memory: {memory / 2 ** 30:.2f} GiB")
    print(f"multiply-adds of an iteration: {counter.macs / 1e9:.1f} G; achieved: {flops:.3f} TFLOP/s, "
          f"{flops / most:.0%} of a large matrix product's {most:.3f}")
    print(f"share of the time that is not convolution: {1 - share_of_convolutions(device, once):.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
