"""The verbs of `python -m taming_jax`, one module each.

A verb's module has `add_arguments(parser)` and `run(args)`; its docstring is its
help. What is heavy is imported by `run`, so that `--help` answers at once.
"""

import argparse
import contextlib

from taming_jax.cli import (
    convert,
    demo,
    demo_conditions,
    evaluate,
    export,
    reconstruct,
    sample,
    tokenize,
)

VERBS = {
    "sample": sample,
    "reconstruct": reconstruct,
    "evaluate": evaluate,
    "tokenize": tokenize,
    "export": export,
    "convert": convert,
    "demo": demo,
    "demo-conditions": demo_conditions,
}


def main(argv: list[str] | None = None) -> int:
    """Runs a verb; 0, or 2 after one line on stderr that says what was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m taming_jax", description="Use and judge what was trained."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, module in VERBS.items():
        summary, _, details = module.__doc__.partition("\n")
        verb = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=details,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        from taming_jax.compilation import keep_programs

        keep_programs()
        args.run(args)
    except ModuleNotFoundError as error:
        extra = "pip install 'taming_jax[train]'"
        return _fail(f"this verb needs {error.name}, which is not installed: {extra}")
    except (ValueError, ImportError, OSError) as error:
        return _fail(str(error))
    return 0


def _fail(reason: str) -> int:
    from taming_jax import processes

    with contextlib.suppress(SystemExit):
        processes.end(2, " ".join(reason.split()))
    return 2
