"""Published PyTorch weights into ours, and ours back; nothing in a file is run.

convert model writes OUTPUT/vqgan and, of a transformer, OUTPUT/prior, which load_vqgan,
load_prior and every --model take, and OUTPUT/card.py, by which they are trained
further. CONFIG is the .yaml that came with the weights, or one of the names below: the
names and shapes of all tensors are known to fit, but for the names that say "unproved",
or "derived": of these only the other size is known, and two that are known for both
sizes do not differ. The paper's other transformers (FFHQ, CelebA-HQ, S-FLCKR, ADE20K,
COCO-Stuff, OpenImages) go by their .yaml, unproved: nobody has seen their files here.
convert perceptual makes the weights of LPIPS from torchvision's VGG16 and LPIPS's VGG
heads. convert back writes a tokenizer of ours, or with --stage prior a transformer,
under its authors' names, and its .yaml beside it.
"""

import argparse

from taming_jax.interop.known import KNOWN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """model, perceptual and back, with their own arguments."""
    known = "\n".join(
        f"  {name:26}{', '.join(filter(None, (known.about, known.doubt)))} "
        f"({known.source.removeprefix('github.com/')})"
        for name, known in KNOWN.items()
    )
    heading = "known configurations, for 256 x 256 pixels where the name does not say:"
    parser.epilog = f"{parser.epilog or ''}\n{heading}\n{known}"
    kinds = parser.add_subparsers(metavar="KIND", required=True)

    model = kinds.add_parser("model", help="a published model into ours")
    model.add_argument("checkpoint", help=".ckpt, .pt, .pth or .safetensors")
    model.add_argument("config", help="a .yaml, or a known name")
    model.add_argument("output", help="a directory, new or empty")
    model.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="converted, for a transformer whose file has none: LlamaGen's",
    )
    model.set_defaults(convert=_model)

    perceptual = kinds.add_parser("perceptual", help="the weights of LPIPS into ours")
    perceptual.add_argument("vgg", help="torchvision's vgg16-397923af.pth")
    perceptual.add_argument("heads", help="LPIPS's weights/v0.1/vgg.pth")
    perceptual.add_argument("output", help="the .npz to write")
    perceptual.set_defaults(convert=_perceptual)

    back = kinds.add_parser("back", help="a model of ours under its authors' names")
    back.add_argument("model", help="a converted model, a run's directory, or a name")
    back.add_argument("output", help="NAME.ckpt or NAME.safetensors")
    back.add_argument(
        "--stage",
        choices=["vqgan", "condition_vqgan", "prior"],
        default="vqgan",
        help="which of the models that are there (default: %(default)s)",
    )
    back.set_defaults(convert=_back)


def run(args: argparse.Namespace) -> None:
    """Converts, and says what was made."""
    args.convert(args)


def _model(args: argparse.Namespace) -> None:
    from taming_jax.interop import convert_checkpoint

    cards = convert_checkpoint(
        args.checkpoint, args.config, args.output, args.tokenizer
    )
    for stage, card in cards.items():
        parts = "".join(f", with {part}" for part in card["parts"])
        print(
            f"{args.output}/{stage}: {card['parameters'] / 1e6:.1f}M parameters{parts}"
        )
    prior = cards.get("prior", {"trains_on": True})
    if not prior["trains_on"]:
        told = prior["condition"]
        print(f"it draws and gives logits; training here does not read its {told}")
        return
    verb = "train_prior.py" if "prior" in cards else "train_vqgan.py"
    print(f"train it further: python {verb} --config {args.output}/card.py")


def _perceptual(args: argparse.Namespace) -> None:
    from taming_jax.interop.perceptual import convert_perceptual

    convert_perceptual(args.vgg, args.heads, args.output)
    print(f"{args.output}: the weights of LPIPS")


def _back(args: argparse.Namespace) -> None:
    from taming_jax.interop import convert_back

    convert_back(args.model, args.output, args.stage)
    print(f"{args.output}, and its configuration beside it")
