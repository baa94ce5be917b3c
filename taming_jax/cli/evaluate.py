"""What a trained model is worth on held-out pictures.

--stage vqgan: PSNR, SSIM, LPIPS where its weights are at hand, usage and perplexity of
the codebook, of reconstructions. --stage condition_vqgan: of class maps pixel accuracy
and mean IoU, of depth and edges PSNR and mean absolute error. --stage prior: bits per
token, and samples, drawn as the recipe says and asked for class by class, or by the
conditions of held-out pictures; and whether they show these: IoU, depth error, edges'
F-score, boxes found, keypoints' error, PSNR.

Where the data have classes a small judge network, trained once on the training pictures
and kept in W/judge for as long as data and --seed stay the same, gives the accuracy of
what it is shown and the Fréchet distance of its features. Likewise a reader in W/reader
says which maps pictures show; its error on the originals stands beside each figure. All
figures are of averaged (EMA) weights; with --workdir they go to W/STAGE/evaluation.json
too.

--neighbours K looks for the K training pictures that are nearest to samples, by pixels
and by the judge's features, and for those of held-out pictures: where samples are much
nearer, the prior copies. Its page of pictures is W/prior/neighbours.png.

Several processes share the work; the first one says and writes what comes of it.
"""

import argparse

from taming_jax.cli import arguments, judges


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--stage, --samples, and what verbs have that several processes can share."""
    parser.add_argument(
        "--stage", required=True, choices=["vqgan", "condition_vqgan", "prior"]
    )
    parser.add_argument(
        "--samples",
        type=arguments.positive,
        metavar="N",
        help="held-out pictures, or samples of a prior (default: as are held out)",
    )
    parser.add_argument(
        "--neighbours",
        type=arguments.positive,
        metavar="K",
        help="of a prior's samples among the training pictures",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="of neighbours.png (default: W/prior)"
    )
    arguments.add_model(parser)
    arguments.add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Measures, prints a table, writes evaluation.json."""
    from taming_jax import data, load_prior, load_vqgan, processes, stored
    from taming_jax.files import write_json

    arguments.start_processes(args)
    path = arguments.model_path(args)
    is_prior = args.stage == "prior"
    # A tokenizer that came alone may be called the other one.
    stage = args.stage if args.workdir else stored.stage_at(path, args.stage)
    model = load_prior(path) if is_prior else load_vqgan(path, stage=stage)
    train, held_out = (
        data.open_source(model.config["data"], split) for split in ("train", "val")
    )
    if not is_prior:
        _check_samples(args, held_out)
    page_path = _page_path(args, model, train)
    judge, beside = None, judges.directory_of(args, model)
    if is_prior or model.input.kind == "image":
        with processes.first_goes_first("the judge"):  # trained and kept by one of them
            judge = judges.judge(train, held_out, beside, args.seed)
    if is_prior:
        with processes.first_goes_first("the reader"):
            reader = _reader(model.vocabulary.told, train, beside, args.seed)
        figures = _measure_prior(model, held_out, args, judge, reader)
    else:
        figures = _measure_vqgan(model, held_out, args, judge)
    if args.neighbours:
        figures |= _measure_neighbours(model, train, held_out, args, judge, page_path)
    about = {"stage": args.stage, "step": model.step, "data": held_out.identity}
    if args.workdir and processes.is_first():  # what --model names stays as it is
        write_json(model.directory / "evaluation.json", {**about, **figures})
    for name, value in figures.items():
        print(f"{name:<33}", f"{value:.4g}" if isinstance(value, float) else value)


def _measure_vqgan(vqgan, held_out, args, judge):
    from taming_jax.metrics.evaluation import evaluate_vqgan

    return evaluate_vqgan(
        vqgan,
        held_out,
        batch_size=args.batch_size,
        samples=args.samples,
        judge=judge,
        perceptual_params=_perceptual(vqgan),
    )


def _measure_prior(prior, held_out, args, judge, reader):
    from taming_jax.metrics.generation import evaluate_prior

    return evaluate_prior(
        prior,
        held_out,
        seed=args.seed,
        batch_size=args.batch_size,
        samples=args.samples,
        judge=judge,
        reader=reader,
    )


def _measure_neighbours(prior, train, held_out, args, judge, page_path):
    from taming_jax import pictures, processes
    from taming_jax.metrics.neighbours import evaluate_neighbours
    from taming_jax.metrics.neighbours_page import neighbours_page

    figures, looked = evaluate_neighbours(
        prior,
        train,
        held_out,
        args.neighbours,
        seed=args.seed,
        batch_size=args.batch_size,
        samples=args.samples,
        judge=judge,
    )
    if processes.is_first():
        pictures.write_png(page_path, neighbours_page(looked, train))
        print(f"samples beside their nearest training pictures: {page_path}")
    return figures


def _page_path(args, model, train):
    """Where neighbours are drawn; raises ValueError where they cannot be."""
    from taming_jax.files import located
    from taming_jax.metrics.neighbours import check_count

    if not args.neighbours:
        if args.output:
            raise ValueError(
                f"--output {args.output} is for --neighbours: leave it out"
            )
        return None
    if args.stage != "prior":
        raise ValueError(
            f"--neighbours is for samples of a prior, and --stage is {args.stage}: "
            "leave it out"
        )
    if not (args.workdir or args.output):
        raise ValueError(
            "--neighbours draws a page, and nothing is written into what --model "
            "names: give --output DIR"
        )
    check_count(args.neighbours, train)
    place = located(args.output) if args.output else model.directory
    return place / "neighbours.png"


def _reader(told, train, beside, seed: int):
    """Of all maps that the data have, so that one serves all conditions."""
    from taming_jax.metrics import asked
    from taming_jax.metrics.reader import READS, reader_of

    if not (needed := asked.to_be_read(told)):
        return None
    maps = {"segmentation", "direct_segmentation"}.intersection(told)
    classes = [told[name].channels for name in maps] or [len(train.region_names)]
    regions = max(classes)
    reads = [name for name in READS if name in train.example_spec]
    reads = [name for name in reads if regions or name != "segmentation"]
    if missing := needed.difference(reads):
        print(f"no reader: the data have no {', '.join(sorted(missing))} to learn from")
        return None
    directory = beside.with_name("reader")
    print(f"reader in {directory}; trained first, if it is not there yet", flush=True)
    return reader_of(
        train, directory=directory, seed=seed, reads=reads, regions=regions
    )


def _check_samples(args, held_out) -> None:
    if args.samples and args.samples > len(held_out):
        raise ValueError(
            f"--samples {args.samples}, and {len(held_out)} pictures are held out; ask "
            "for fewer, or leave it out to take all"
        )


def _perceptual(vqgan):
    """The weights of LPIPS where they are at hand: one more figure is no download."""
    from taming_jax.interop.perceptual import default_path, load_perceptual

    if vqgan.input.kind != "image" or vqgan.module.image_channels not in (1, 3):
        return None
    path = vqgan.config[vqgan.stage].get("perceptual_weights")
    try:
        return load_perceptual(path or default_path())
    except ValueError as reason:
        print(f"no LPIPS: {reason}")
        return None
