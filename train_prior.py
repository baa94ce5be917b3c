"""Trains a prior on a trained tokenizer's codes, or goes on with it.

python train_prior.py --config configs/shapes.py
python train_prior.py --config configs/custom.py --config.data.train=DIR
"""

import sys

from taming_jax.cli.train import main

if __name__ == "__main__":
    main(sys.argv, stages=("prior",))
