"""The judge of a model's data: where it is kept, and what is said of it."""

import argparse


def directory_of(args: argparse.Namespace, model):
    """In the run; of what is none, in the user's cache, beside the weights of LPIPS."""
    from taming_jax.interop.perceptual import default_path

    if args.workdir:
        return model.directory.parent / "judge"
    return default_path().with_name("judge")


def judge(train, held_out, directory, seed: int | None):
    """As `metrics.judge.judge_of`; None where the data have no classes."""
    from taming_jax.metrics.judge import judge_of

    if len(train.class_names) < 2:
        print("no judge: the data have no classes to tell apart")
        return None
    print(f"judge in {directory}; trained first, if it is not there yet", flush=True)
    return judge_of(train, held_out, directory=directory, seed=seed)
