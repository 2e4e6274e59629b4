"""How fast does an iteration run here, and where does its time go?

    python study/bench.py                            the default run's networks
    python study/bench.py --preset paper             the paper's, at 256 px; any setting of trip.py may follow
    python study/bench.py --seconds 30 --batch 16    measured for 30 seconds (default: 10)

Counts the multiply-adds of all passes of an iteration, and compares with a large matrix product there.
"""

import sys
import time
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
        if function._overloadpacket in flop_registry:
            self.macs += flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=out) // 2
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
    """Bytes: of the GPU's memory, or of the whole process; None where nobody says (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def share_of_convolutions(device, once):
    """The convolutions' share of the time of three calls, all passes; nan where no profiler tells (mps)."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(3):
            once()
        wait(device)
    times = {event.key: event.self_cpu_time_total if device.type == "cpu" else
             getattr(event, "self_device_time_total", None) or getattr(event, "self_cuda_time_total", 0)
             for event in profiler.key_averages()}
    total = sum(t for key, t in times.items() if key.startswith("aten::") or device.type == "cpu")
    convolutions = sum(t for key, t in times.items() if key.startswith("aten::") and "conv" in key)
    return convolutions / total if total else float("nan")


def main(argv):
    seconds = 10.0
    if "--seconds" in argv:
        place = argv.index("--seconds")
        try:
            seconds, argv = float(argv[place + 1]), argv[:place] + argv[place + 2:]
        except (IndexError, ValueError):
            seconds = 0
        if not 0 < seconds < 1e6:
            raise data.InputError("--seconds: type a number of seconds after it, as in --seconds 30")
    args = trip.parse(argv, "study/bench.py")
    if args.edit or args.resume:
        raise data.InputError("--edit, --resume: bench.py takes settings of a training only; leave these out")
    config = trip.Config(**args.config | dict(steps=10 ** 9, warmup=0))
    if len(config.attr) > len(data.FACE_ATTRS):
        raise data.InputError(f"--attr: at most {len(data.FACE_ATTRS)} here, for it draws its pictures")
    device = data.choose_device(args.device)
    run = trip.Run(config, device)
    data.speed_up(run)
    faces = data.faces(data.FACE_ATTRS[:len(config.attr)], config.size, n=max(64, config.batch))
    loop = trip.train(run, data.pairs(faces, config.batch, run.rng, config.ties, device))

    def once():
        return next(loop)

    for _ in range(3):  # the first ones are slow: choice of kernels, compilation
        once()
    with Counter() as counter:
        once()
    macs = counter.macs
    its = rate(device, once, seconds)
    memory = peak_memory(device)
    dtype = torch.bfloat16 if data.in_bf16(config.precision, device) else torch.float32
    matrix = matrix_rate(device, dtype)
    name = (torch.cuda.get_device_name() if device.type == "cuda" else
            f"{device.type}, {torch.get_num_threads()} threads")
    parameters = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (run.G, run.R)]
    print(f"preset {args.preset or 'small'} on {name}, PyTorch {torch.__version__}, "
          f"{str(dtype).removeprefix('torch.')}")
    print(f"{config.size} x {config.size} pixels, batch {config.batch}; parameters: G {parameters[0]:.2f} M, "
          f"R {parameters[1]:.2f} M")
    print(f"{its:.2f} iterations/s, {its * config.batch:.1f} images/s, {1 / its:.3f} s an iteration")
    print("peak memory: " + (f"{memory / 2 ** 30:.2f} GiB" if memory else "unknown"))
    print(f"multiply-adds of an iteration: {macs / 1e9:.1f} G; "
          f"achieved: {2 * macs * its / 1e12:.3f} TFLOP/s, "
          f"{macs * its / matrix:.0%} of a large matrix product's {2 * matrix / 1e12:.3f}")
    print(f"share of the time that is not convolution: {1 - share_of_convolutions(device, once):.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(data.exit_code("bench.py", main, None))
