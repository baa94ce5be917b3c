"""Trains a tokenizer, or goes on with it.

python train_vqgan.py --config configs/shapes.py
python train_vqgan.py --config configs/custom.py --config.data.train=DIR
python train_vqgan.py --config configs/scenes.py --stage=condition_vqgan
"""

import sys

from taming_jax.cli.train import main

if __name__ == "__main__":
    main(sys.argv, stages=("vqgan", "condition_vqgan"))
