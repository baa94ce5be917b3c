"""What a reconstruction or a sample is worth, in numbers.

pixels.py      PSNR and SSIM of two batches of pictures
frechet.py     the Fréchet distance between two sets of features
codebook.py    which share of the codebook is used, and how evenly
classes.py     pixel accuracy and mean IoU of two batches of class maps
judge.py       a small classifier of the data at hand: features and predictions
evaluation.py  all of them over the held-out data, for a tokenizer
"""
