"""Who makes the step on a GPU: a program for each row (kernels/gpu/step.py), or Triton's other kernels, in turns.

The model is `gram bench`'s D 128, with random weights, and the same with attention. --compile compiles the program for an
H100, as can be done without a GPU, and says what it takes.
"""

import argparse

import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gram.kernels import timing
from gram.kernels.gpu import layout, step
from gram.models.config import Mixing
from gram.models.fused import FusedStep
from gram.models.network import GRAM
from gram.models.serving import Kernels, prepare
from gram.server.bench import SIZES, fill
from gram.server.engine.graphs import GPU_TILE, GraphRunner

SIDES: tuple[Kernels, ...] = ("Triton", "Triton step")
SLOTS = (64, 128, 256, 512, 1024)
MIXINGS: tuple[Mixing, ...] = ("swiglu", "attention")
H100 = GPUTarget("cuda", 90, 32)


def model_of(mixing: Mixing, device: torch.device) -> GRAM:
    """The model to step, in bfloat16."""
    config = SIZES["D 128"].model_copy(update={"mixing": mixing})
    return GRAM(config, torch.bfloat16, posterior=False).to(device).cast_weights().requires_grad_(False)


def compiled(mixing: Mixing) -> str:
    """What the program takes on an H100."""
    packed = FusedStep(model_of(mixing, torch.device("cpu"))).packed
    constants = layout.constants(packed, torch.bfloat16)
    names = step._kernel.arg_names
    kinds = {name: _kind(name) for name in names if name not in constants}
    places = {name: (place,) for place, name in enumerate(names)}
    source = ASTSource(
        step._kernel,
        {name: kinds.get(name, "constexpr") for name in names},
        {places[name]: value for name, value in constants.items()},
        {places[name]: [["tt.divisibility", 16]] for name, kind in kinds.items() if kind.startswith("*")},
    )
    made = compile(source, target=H100, options=layout.options(packed))
    products = made.asm["ptx"].count("wgmma.mma_async")
    return f"{mixing}: {made.metadata.shared:,} bytes of shared memory, {products} asynchronous matrix instructions"


def _kind(name: str) -> str:
    """Triton's name for the type of an argument."""
    if name in ("eps", "log_sigma_min", "log_sigma_max"):
        return "fp32"
    if name in ("temperature", "sigmas", "bias", "cos", "sin"):
        return "*fp32"
    if name in ("seed", "index", "transition"):
        return "*i64"
    return "i32" if name.endswith("_stride") or name == "length" else "*bf16"


def measured(mixing: Mixing, device: torch.device) -> None:
    """Print the rates of both sides."""
    runners = []
    for kernels in SIDES:
        model = model_of(mixing, device)
        if kernels == "Triton step" and prepare(model, GPU_TILE) != kernels:
            raise SystemExit("the program does not compile on this GPU; the log says why")
        runners.append(GraphRunner(model, device))
    for slots in SLOTS:
        pools = [runner.pool(slots) for runner in runners]
        for runner, pool in zip(runners, pools, strict=True):
            fill(pool, runner.model.config, slots)
        sides = [lambda _, r=runner, p=pool: r.step(p) for runner, pool in zip(runners, pools, strict=True)]
        before, whole = timing.seconds(sides, device)
        print(f"| {mixing} | {slots} | {slots / before:,.0f} | {slots / whole:,.0f} | {before / whole:.1f} |", flush=True)


def main() -> None:
    """Compile, or measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_kernels", description=__doc__)
    parser.add_argument("--compile", action="store_true", help="compile the program for an H100, which needs no GPU")
    if parser.parse_args().compile:
        print(compiled("swiglu"))
        return
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name(device)}, bfloat16, torch {torch.__version__}, trajectory-steps/s")
    print(f"\n| mixing | slots | {' | '.join(SIDES)} | times as fast |\n| --- | --- | --- | --- | --- |")
    for mixing in MIXINGS:
        measured(mixing, device)


if __name__ == "__main__":
    main()
