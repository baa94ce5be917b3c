"""Reconstruction metrics of a tokenizer on held-out pictures.

PSNR, SSIM, LPIPS where its weights are at hand, usage and perplexity of the codebook;
where the data have classes also the Fréchet distance and the accuracy in the eyes of
a small judge network, which is trained once, on the training pictures, and kept in
W/judge for as long as the data and --seed stay the same. All figures are of the
averaged (EMA) weights; they go to W/vqgan/evaluation.json too.
"""

import argparse

from taming_jax.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--stage, --samples, and what all verbs have."""
    parser.add_argument("--stage", required=True, choices=["vqgan"])
    parser.add_argument(
        "--samples",
        type=arguments.positive,
        metavar="N",
        help="so many of the held-out pictures (default: all)",
    )
    arguments.add_model(parser)


def run(args: argparse.Namespace) -> None:
    """Measures, prints a table, writes evaluation.json."""
    from taming_jax import data, load_vqgan
    from taming_jax.metrics.evaluation import evaluate_vqgan
    from taming_jax.training.workdir import write_json

    vqgan = load_vqgan(arguments.model_path(args))
    train, held_out = (
        data.open_source(vqgan.config["data"], split) for split in ("train", "val")
    )
    if args.samples and args.samples > len(held_out):
        raise ValueError(
            f"--samples {args.samples}, and {len(held_out)} pictures are held out; ask "
            "for fewer, or leave it out to take all"
        )
    figures = evaluate_vqgan(
        vqgan,
        held_out,
        batch_size=args.batch_size,
        samples=args.samples,
        judge=_judge(train, held_out, vqgan.directory.parent / "judge", args.seed),
        perceptual_params=_perceptual(vqgan.config["vqgan"].get("perceptual_weights")),
    )
    about = {"stage": args.stage, "step": vqgan.step, "data": held_out.identity}
    write_json(vqgan.directory / "evaluation.json", {**about, **figures})
    for name, value in figures.items():
        print(f"{name:<28}", f"{value:.4g}" if isinstance(value, float) else value)


def _judge(train, held_out, directory, seed: int):
    from taming_jax.metrics.judge import judge_of

    if len(train.class_names) < 2:
        print("no judge: the data have no classes to tell apart")
        return None
    print(f"judge in {directory}; trained first, if it is not there yet", flush=True)
    return judge_of(train, held_out, directory=directory, seed=seed)


def _perceptual(path: str | None):
    from taming_jax.interop.perceptual import load_perceptual

    try:
        return load_perceptual(path)
    except ValueError as reason:
        print(f"no LPIPS: {reason}")
        return None
